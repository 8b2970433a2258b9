"""`nas verify`: whether exported networks still are, on this machine, what their manifests say.

Hashes and answers must hold anywhere. Accuracy and latency are measured again and printed beside what they
were: another engine version may round a tie the other way, and another machine has another speed.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hw_profiles.backend import Job
from hw_profiles.backends.ort import (
    CPU,
    EXACT_SUMS,
    OrtBackend,
    integer_sums,
    open_session,
    outputs,
    takes_bytes,
)
from hw_profiles.errors import TrilobitError
from hw_profiles.host import cpu_model
from hw_profiles.measurement import MeasurePlan
from hw_profiles.profiler import measure_patiently
from hw_profiles.workload import LayerSpec, single
from nas.export.card import MODEL_FILE
from nas.export.check import Input, agreement, digest, made_up_images
from nas.export.library import (
    LIBRARY,
    OtherProcessorError,
    library_latency,
    require_runnable,
    run_library,
)
from nas.export.package import MANIFEST, hash_of, read_manifest
from nas.export.sums import needs_exact_sums, open_exactly
from nas.export.verify import AGREEMENT, file_accuracy
from nas.objectives import OBJECTIVES
from nas.targets import show
from supernet.train.data import Dataset, load_data, to_batch

MOVED_POINTS = 0.5  # of accuracy; less is a tie that rounds the other way


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at again.

    Attributes:
        what: for example `latency`.
        then, now: as people read it.
        holds: False where it must hold and does not; None where it may move.
    """

    what: str
    then: str
    now: str
    holds: bool | None


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Check one folder, or all in one, and print what moved.

    Raises:
        TrilobitError: not a folder of exported networks, or something that must hold does not.
    """
    folders = network_folders(arguments.folder)
    data = None
    if arguments.data:  # split by the seed of the run, where that has to be done
        data = load_data(arguments.data, seed=read_manifest(folders[0])["seed"])
    found = {folder.name: verify(folder, data, latency=not arguments.no_latency) for folder in folders}
    for name, findings in found.items():
        console.print(_table(name, findings))
    broken = [
        f"{name}: {one.what} was {one.then}, is {one.now}"
        for name, findings in found.items()
        for one in findings
        if one.holds is False
    ]
    if broken:
        raise TrilobitError("; ".join(broken) + ": export again, or fetch the folder again")
    console.print(f"{len(found)} network{'s' if len(found) > 1 else ''}: all that must hold holds")
    return {name: [asdict(one) for one in findings] for name, findings in found.items()}


def network_folders(folder: Path) -> list[Path]:
    """The folders of exported networks in a folder: itself, its children, or those of `export` in a run.

    Raises:
        TrilobitError: there is none.
    """
    for parent in (folder, folder / "export"):
        if (parent / MANIFEST).is_file():
            return [parent]
        if found := sorted(path.parent for path in parent.glob(f"*/{MANIFEST}")):
            return found
    raise TrilobitError(
        f"{folder}: no exported network there; give a folder with a {MANIFEST}, or a run folder"
    )


def verify(folder: Path, data: Dataset | None, *, latency: bool = True) -> list[Finding]:
    """Look at everything in the folder of one network again. Nothing is loaded whose hash is another.

    Args:
        data: whose test part accuracy is measured on; None leaves that out.
        latency: whether it is measured here.

    Raises:
        TrilobitError: the manifest is broken or of another version, a file is not an ONNX model of ours, or
            the data has other classes.
    """
    manifest = read_manifest(folder)
    findings = _hashes(folder, manifest["files"])
    if any(one.holds is False for one in findings):
        return findings  # nothing else means anything
    model = folder / MODEL_FILE
    _require_ours(model, manifest)
    findings += [*_integer_sums(model), *_answers(model, manifest)]
    if data is not None:
        findings.append(_accuracy(model, manifest, data))
    if latency:
        findings.append(_latency(model, manifest))
    if manifest.get("library"):
        findings += _library(folder / LIBRARY, manifest, data, latency=latency)
    return findings


def _hashes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    found = []
    for name, file in files.items():
        now = hash_of(folder / name)
        found.append(Finding(f"sha256 of {name}", file["sha256"][:16], now[:16], now == file["sha256"]))
    return found


def _require_ours(model: Path, manifest: Mapping[str, Any]) -> None:
    try:
        known = open_session(model).get_modelmeta().custom_metadata_map
    except Exception as error:  # whatever the engine rejects, in its own words
        raise TrilobitError(f"{model}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from None
    if known.get("trilobit.id") != manifest["id"]:
        named = known.get("trilobit.id", "nothing")
        raise TrilobitError(
            f"{model}: calls itself {named}, its manifest {manifest['id']}; not exported by `nas`"
        )


def _integer_sums(model: Path) -> list[Finding]:
    """What the file needs of this processor; nothing where it needs nothing."""
    if not needs_exact_sums(model):
        return []
    here = integer_sums(CPU)
    option = f": open it with the session option {EXACT_SUMS}=1, as is done below"
    said = f"{here} on {cpu_model()}{option if here == 'saturating' else ''}"
    return [Finding("integer sums", "exact ones are needed", said, None)]


def _answers(model: Path, manifest: Mapping[str, Any]) -> list[Finding]:
    """The answers to images that can be made anywhere."""
    image, answers = Input.from_json(manifest["input"]), manifest["answers"]
    pixels = made_up_images(answers["images"], image.shape)
    session = open_exactly(model)
    logits = outputs(session, pixels if takes_bytes(session) else image.normalised(pixels))
    share, difference = agreement(logits, answers)
    then, now = f"{answers['images']} answers", f"{share:.1%} the same, logits within {difference:.2g}"
    return [Finding("answers", then, now, share >= AGREEMENT)]


def _accuracy(model: Path, manifest: Mapping[str, Any], data: Dataset) -> Finding:
    if list(data.classes) != manifest["classes"]:
        raise TrilobitError(
            f"--data: its classes are {', '.join(data.classes[:5])}..., the network's "
            f"{', '.join(manifest['classes'][:5])}...; give the data it was made for"
        )
    then, now = manifest["accuracy"]["test"], file_accuracy(model, data.test, data)
    return _moved("test accuracy", then, now, len(data.test), manifest)


def _moved(what: str, then: float | None, now: float, images: int, manifest: Mapping[str, Any]) -> Finding:
    """An accuracy; nothing holds or fails where there is nothing to compare it with."""
    same = images == manifest["accuracy"]["n"]
    holds = abs(now - then) * 100 <= MOVED_POINTS if same and then is not None else None
    said = f"{now:.2%}" if same else f"{now:.2%} of {images} other images"
    return Finding(what, "not measured" if then is None else f"{then:.2%}", said, holds)


def _latency(model: Path, manifest: Mapping[str, Any]) -> Finding:
    device, then = manifest["device"], manifest["latency"]["median_s"]
    exact_sums = needs_exact_sums(model)
    backend = OrtBackend(threads=device["threads"], batch=device["batch"], exact_sums=exact_sums)
    job = Job(single(LayerSpec("pool", (1, 1, 1), 1)), partial(model.read_bytes))  # only the file is run
    [now] = measure_patiently(backend, [job], MeasurePlan())
    seconds = partial(show, OBJECTIVES["latency"])
    if now.error is not None:
        return Finding("latency", seconds(then), now.error, False)
    here = "here" if device["cpu"] == cpu_model() else f"on {cpu_model()}"
    said = f"{seconds(now.median_s)} ({now.median_s / then:.2f} x), IQR {seconds(now.iqr_s)}, {here}"
    return Finding("latency", f"{seconds(then)} on {device['name']}, {device['cpu']}", said, None)


def _library(
    path: Path, manifest: Mapping[str, Any], data: Dataset | None, *, latency: bool
) -> list[Finding]:
    """What the network's library does, where this processor can run it."""
    record, image = manifest["library"], Input.from_json(manifest["input"])
    classes = len(manifest["classes"])
    if LIBRARY not in manifest["files"]:
        raise TrilobitError(f"{path}: its manifest has no hash of it; not exported by `nas`")
    try:
        require_runnable(path, image.shape, classes)
    except TrilobitError as error:
        holds = None if isinstance(error, OtherProcessorError) else False
        return [Finding("library", f"for {record['target']}", str(error), holds)]
    found = [_library_answers(path, manifest, image)]
    if data is not None:
        pixels = to_batch(data.test, data, image.shape[0]).contiguous().numpy()
        right = run_library(path, pixels, classes).argmax(axis=1) == data.test.labels
        then = record.get("test_accuracy")
        found.append(_moved("accuracy of the library", then, float(right.mean()), len(data.test), manifest))
    if latency:
        found.append(_library_latency(path, record.get("latency"), image, classes))
    return found


def _library_answers(path: Path, manifest: Mapping[str, Any], image: Input) -> Finding:
    own = manifest["library"].get("answers")  # or those of the simulation, which rounds otherwise
    answers = own or manifest["answers"]
    pixels = image.normalised(made_up_images(answers["images"], image.shape))
    logits = run_library(path, pixels, len(manifest["classes"]))
    share, difference = agreement(logits, answers)
    now = f"{share:.1%} the same, logits within {difference:.2g}"
    what, then = "answers of the library", f"{answers['images']} answers"
    if "sha256" not in answers:
        return Finding(what, then, now, share >= AGREEMENT if own else None)
    exact = digest(logits) == answers["sha256"]
    return Finding(what, f"{then}, every bit", "every bit the same" if exact else now, exact)


def _library_latency(path: Path, then: Mapping[str, Any] | None, image: Input, classes: int) -> Finding:
    now, seconds = library_latency(path, image.shape, classes), partial(show, OBJECTIVES["latency"])
    said = f"{seconds(now.median_s)}, IQR {seconds(now.iqr_s)}, on {cpu_model()}"
    if then is None:
        return Finding("latency of the library", "not measured", said, None)
    said += f" ({now.median_s / then['median_s']:.2f} x)"
    return Finding("latency of the library", f"{seconds(then['median_s'])} on {then['cpu']}", said, None)


def _table(name: str, findings: Sequence[Finding]) -> Table:
    table = Table("", "then", "now", "", title=name)
    for one in findings:
        verdict = {True: "holds", False: "DIFFERS", None: ""}[one.holds]
        table.add_row(one.what, one.then, one.now, verdict)
    return table
