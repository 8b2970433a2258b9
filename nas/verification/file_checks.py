"""What an exported ONNX file is and does, beside what its manifest says. The file is only ever loaded in a
process of its own.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.runtimes.onnx_file import EXACT_SUMS
from nas.checks.check import Input, agreement, made_up_images
from nas.checks.confined import Array, ConfinedError, Limits, confined
from nas.checks.engine import FileEngine, file_engine
from nas.checks.file_tasks import FileFacts, measurement_of
from nas.checks.parity import AGREEMENT, input_of
from nas.export.library.library import WAITING_S
from nas.export.manifest import Manifest
from nas.export.seal import CLAIMS
from nas.search.objectives import objective
from nas.search.units import show, show_latency
from nas.verification.finding import Finding, moved
from supernet.data.images import Images
from supernet.tasks.image_classification import ImageClassification

Logits = NDArray[np.float32]
TRIAL_S = 60.0  # for a file to load
LONGEST_TRIAL_S = 600.0  # and to answer, whatever its manifest says of its latency
SLACK = 20.0  # times as long as its first images took
MOST_RUNS = 1000  # of a model in one measurement of its latency: windows, warm-ups, repeats
CHUNK_BYTES = 2**28  # of images that go to a process at once
SHOWN = 16


def check_file(
    model: Path, manifest: Manifest, claims: str | None, data: ImageClassification | None, *, latency: bool
) -> Iterator[Finding]:
    """Yield everything about the ONNX file that can be looked at again.

    Args:
        claims: digest of the manifest's claims, which the file must have; None where the manifest is of a
            version without: then the file must have none.
        data: whose parts accuracy is measured on; None leaves that out.

    Raises:
        TrilobitError: it cannot be loaded or run, is no file of ours, or the data has other classes.
    """
    image = manifest.input
    engine = file_engine(manifest.device)
    pixels = made_up_images(manifest.answers.images, image.shape)
    facts, logits = _examined(model, engine, manifest, pixels if image.pixels else image.normalised(pixels))
    inside = facts.metadata.get(CLAIMS)
    if claims is not None or inside is not None:  # or its manifest was made an older one, without a digest
        then, now = ((digest or "none")[:SHOWN] for digest in (claims, inside))
        yield Finding("claims in the file", then, now, inside == claims)
    yield Finding("opset", str(manifest.opset), str(facts.opset), facts.opset == manifest.opset)
    yield _kernels(engine, manifest, facts)
    if facts.exact_sums or manifest.requires:
        yield _integer_sums(engine, manifest, facts)
    share, difference = agreement(logits, manifest.answers)
    now = f"{share:.1%} the same, logits within {difference:.2g}"
    yield Finding("answers", f"{manifest.answers.images} answers", now, share >= AGREEMENT)
    if data is not None:
        yield from _accuracies(model, engine, manifest, data, facts.run_s)
    if latency:
        yield _latency(model, engine, manifest, facts.run_s)


def _integer_sums(engine: FileEngine, manifest: Manifest, facts: FileFacts) -> Finding:
    """Return what the file needs of this processor, by the manifest and by its weights."""
    claims_exact = manifest.requires.get("integer_sums") == "exact"
    here = engine.runtime.describe().integer_sums
    option = f": open it with the session option {EXACT_SUMS}=1, as is done here"
    now = f"{here} on {cpu_model()}{option if here == 'saturating' else ''}"
    claim = "exact ones are needed" if claims_exact else "nothing is needed"
    if claims_exact != facts.exact_sums:
        now = f"its weights {'need exact sums' if facts.exact_sums else 'need nothing'}"
    return Finding("integer sums", claim, now, None if claims_exact == facts.exact_sums else False)


def _examined(model: Path, engine: FileEngine, manifest: Manifest, images: Array) -> tuple[FileFacts, Logits]:
    """Return what a file is, and its (n, classes) logits of images as a file like that takes them.

    Raises:
        TrilobitError: it cannot be loaded or run, or is no file of ours.
    """
    claimed_s = SLACK * manifest.latency.median_s * len(images)
    limits = Limits(min(TRIAL_S + claimed_s, LONGEST_TRIAL_S))
    try:
        document, arrays = confined(
            "nas.checks.file_tasks:examine_file",
            _request(model, engine),
            limits=limits,
            arrays={"images": images},
        )
        facts = parse(FileFacts, document)
    except (ConfinedError, MismatchError) as error:
        raise TrilobitError(f"{model}: {engine.title} cannot load it: {error}") from None
    _require_ours(model, manifest, facts)
    return facts, _logits(model, arrays, len(images), len(manifest.classes))


def _request(model: Path, engine: FileEngine, **more: Any) -> dict[str, Any]:
    return {"path": str(model.absolute()), "device": engine.request(), **more}


def _require_ours(model: Path, manifest: Manifest, facts: FileFacts) -> None:
    named = facts.metadata.get("trilobit.id", "nothing")
    if named != manifest.id:
        raise TrilobitError(
            f"{model}: calls itself {named[:40]}, its manifest {manifest.id}; not exported by `nas`"
        )
    h, w, c = manifest.input.shape
    image = (h, w, c) if manifest.input.pixels else (c, h, w)
    if facts.pixels != manifest.input.pixels or facts.shape[1:] != image:
        raise TrilobitError(
            f"{model}: reads {facts.shape[1:]} where its manifest says {image}; not exported by `nas`"
        )


def _kernels(engine: FileEngine, manifest: Manifest, facts: FileFacts) -> Finding:
    """Return the integer kernels that really run; another version of the engine may fuse otherwise."""
    then, now = manifest.parity.integer_kernels, facts.integer_kernels
    here = engine.runtime.describe()
    same_engine = manifest.versions.get(here.engine) == here.engine_version
    return Finding("integer kernels", str(then), str(now), then == now or (False if same_engine else None))


def _logits(model: Path, arrays: Mapping[str, Array], images: int, classes: int) -> Logits:
    logits = arrays.get("logits")
    if logits is None or logits.shape != (images, classes) or logits.dtype != np.float32:
        raise TrilobitError(f"{model}: gives no logits of {classes} classes for {images} images")
    return logits


def require_classes(manifest: Manifest, data: ImageClassification) -> None:
    """Refuse data of other classes.

    Raises:
        TrilobitError: it has.
    """
    if data.classes != manifest.classes:
        raise TrilobitError(
            f"--data: its classes are {', '.join(data.classes[:5])}..., the network's "
            f"{', '.join(manifest.classes[:5])}...; give the data it was made for"
        )


def _accuracies(
    model: Path, engine: FileEngine, manifest: Manifest, data: ImageClassification, run_s: float
) -> Iterator[Finding]:
    require_classes(manifest, data)
    accuracy = manifest.accuracy
    for what, part, then, of in (
        ("test accuracy", data.test, accuracy.test, accuracy.n),
        ("search-validation accuracy", data.validation, accuracy.validation, manifest.parity.images),
    ):
        right = 0
        for some in chunks(part, manifest.input):
            images = input_of(some, data, size=manifest.input.shape[0], pixels=manifest.input.pixels)
            labels = _predictions(model, engine, manifest, images, run_s * len(some))
            right += int((labels == some.labels).sum())
        yield moved(what, then, right / len(part), images=len(part), of=of)


def _predictions(
    model: Path, engine: FileEngine, manifest: Manifest, images: Array, expected_s: float
) -> NDArray[np.int64]:
    """Return (n,) labels of images as the file takes them.

    Raises:
        TrilobitError: the file does not give them, or not in time.
    """
    limits = Limits(TRIAL_S + SLACK * expected_s)
    try:
        _, arrays = confined(
            "nas.checks.file_tasks:file_logits",
            _request(model, engine),
            limits=limits,
            arrays={"images": images},
        )
    except ConfinedError as error:
        raise TrilobitError(f"{model}: {engine.title} cannot run it: {error}") from None
    logits = _logits(model, arrays, len(images), len(manifest.classes))
    return np.asarray(logits.argmax(axis=1))


def chunks(images: Images, image: Input) -> Iterator[Images]:
    """Yield images in parts that are small enough to hand over."""
    count = max(1, CHUNK_BYTES // (4 * int(np.prod(image.shape))))
    for start in range(0, len(images), count):
        yield images[start : start + count]


def _latency(model: Path, engine: FileEngine, manifest: Manifest, run_s: float) -> Finding:
    """Return the file's latency by the clock and the options that it was exported with."""
    device, then = manifest.device, manifest.latency
    seconds = partial(show, objective("latency"))
    looked_up = ", looked up" if then.replayed else ""
    said_then = f"{seconds(then.median_s)} on {device.name}, {device.cpu}{looked_up}"
    if engine.refused:
        return Finding("latency", said_then, f"not measured: {engine.refused}", None)
    plan = plan_on(MeasurePlan(waiting_s=WAITING_S), engine.runtime.clock)
    try:
        request = _request(model, engine, plan=plan.to_json())
        limits = Limits(TRIAL_S + MOST_RUNS * run_s * device.batch)
        document, _ = confined("nas.checks.file_tasks:file_latency", request, limits=limits)
        now = measurement_of(document)
    except (ConfinedError, MismatchError) as error:
        return Finding("latency", said_then, str(error), False)
    if now.error is not None:
        return Finding("latency", said_then, now.error, False)
    here = "here" if device.cpu == cpu_model() else f"on {cpu_model()}"
    ratio = f" ({now.median_s / then.median_s:.2f} x)" if engine.own else f", {device.engine} was timed then"
    measured = f"{show_latency(now.median_s, now.iqr_s, now.load)}{ratio}, {here}"
    return Finding("latency", said_then, measured, None)
