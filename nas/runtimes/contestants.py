"""Files that are compared: a network in fp32 on each runtime, and the mix of formats found for one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32
from hw_profiles.registry import DEVICES, names
from hw_profiles.runtimes.plugin import DeviceChoice, choice_of, choose, device_kind
from nas.export.library.library import LIBRARY
from nas.export.library.tuned import TunedLibrary
from nas.export.manifest import Manifest
from nas.export.manifests import AnyManifest, read_any
from nas.export.seal import MANIFEST, MODEL_FILE
from nas.export.tuned_manifest import TunedManifest
from nas.export.tuned_selection import pick
from nas.run.configuration import RECORD
from nas.run.paths import EXAMPLE, ORIGINAL
from nas.run.tune_config import is_tune_folder
from nas.run.tuned_document import TunedFront, TunedNetwork

GIVE = "give an ONNX file, or the folder of a tune or a run"


@dataclass(frozen=True)
class Contestant:
    """A file, and what runs it.

    Attributes:
        network: whose file it is: its id, or the name of the original.
        formats: of its layers, in words; `fp32` for all.
        path: of the file.
        device: as `--device` takes it.
        title: of the runtime, as people call it.
        request: what opens it, for a process of its own.
        machine: that it runs on; empty for this one.
        metric: what was measured of its answers when it was found; empty where nothing was.
        quality: its value; None where nothing was.
    """

    network: str
    formats: str
    path: Path
    device: str
    title: str
    request: Mapping[str, Any]
    metric: str = ""
    quality: float | None = None
    machine: str = ""


def installed(chosen: Sequence[str] = ()) -> tuple[list[DeviceChoice], list[str]]:
    """Return the runtimes of ONNX files on this machine, or those that are chosen, and a line for each that
    cannot be used.

    Raises:
        TrilobitError: a chosen one runs no ONNX files.
    """
    usable, notes = list[DeviceChoice](), list[str]()
    for text in chosen or _known():
        choice = choose(text)
        if choice.kind.artifact != "onnx":
            raise TrilobitError(
                f"--device {text}: runs no ONNX files; give the folder of a tune for it instead: "
                f"nas tune MODEL --device {text}"
            )
        try:
            if not choice.open().describe().timeless:
                usable.append(choice)
            elif chosen:
                notes.append(f"{text} is left out: it has no times")
        except TrilobitError as error:
            notes.append(f"{text} is left out: {str(error).removeprefix(f'{text}: ')}")
    return usable, notes


def _known() -> Iterator[str]:
    for name in sorted(names("trilobit.devices", DEVICES), key=lambda name: (name != "ort", name)):
        kind = device_kind(name)
        if kind.artifact == "onnx" and not kind.required:
            yield name


def in_fp32(path: Path, choices: Sequence[DeviceChoice]) -> list[Contestant]:
    """Return a file as it is on each of these runtimes."""
    return [_on(choice, path, path.stem, FP32) for choice in choices]


def exported(folder: Path, choices: Sequence[DeviceChoice]) -> list[Contestant]:
    """Return every exported network of a run on each of these runtimes.

    Raises:
        TrilobitError: there is none.
    """
    paths = sorted(path for path in folder.glob(f"export/*/{MODEL_FILE}") if _sealed(path))
    if not paths and not (folder / RECORD).is_file():
        raise TrilobitError(f"{folder}: no run and no tune; {GIVE}")
    if not paths:
        raise TrilobitError(f"{folder}: no exported networks; `nas export -o {folder}` writes some")
    return [contestant for path in paths for contestant in _exported(path, choices)]


def _exported(path: Path, choices: Sequence[DeviceChoice]) -> list[Contestant]:
    """Return a network on each runtime, with what was measured of its answers when it was exported."""
    manifest = read_any(path.parent)
    metric, quality = "", None
    if isinstance(manifest, Manifest):
        metric, quality = manifest.metric, manifest.accuracy.test
    on = [_on(choice, path, path.parent.name, _mix(manifest)) for choice in choices]
    return [
        replace(each, metric=metric, quality=quality, request={**each.request, "group": each.network})
        for each in on
    ]


def best_mixes(
    folder: Path, picks: Sequence[str], choices: Sequence[DeviceChoice] = (), *, run_library: bool
) -> list[Contestant]:
    """Return the exported files of a tune that `picks` name, on what it was tuned for.

    Args:
        choices: runtimes that are compared: the one that it was tuned for may be a board's.

    Raises:
        TrilobitError: nothing is exported, nothing is meant, it was tuned for what is not here, or it is
            machine code that may not run.
    """
    front = read_document(folder / "front.json", TunedFront)
    exported = [each for each in front.candidates if (folder / "export" / each.id / MANIFEST).is_file()]
    if not exported:
        raise TrilobitError(f"{folder}: no exported files; `nas export -o {folder}` writes some")
    networks = pick(replace(front, candidates=tuple(exported)), picks)
    return [_mix_of(folder, network, front.metric.name, choices, run_library) for network in networks]


def _mix_of(
    folder: Path, network: TunedNetwork, metric: str, choices: Sequence[DeviceChoice], run_library: bool
) -> Contestant:
    place = folder / "export" / network.id
    manifest = read_any(place)
    matches = (each for each in choices if each.kind.machine and each.kind.engine == manifest.device.engine)
    choice = next(matches, None) or choice_of(manifest.device)
    if choice is None:
        raise TrilobitError(f"{folder}: was tuned for {manifest.device.engine}, which is not known here")
    figure = (network.judging or network.choosing).metrics.get(metric)
    contestant = replace(
        _on(choice, place / MODEL_FILE, network.id, _mix(manifest)),
        metric=metric,
        quality=None if figure is None else figure.value,
    )
    library = manifest.library if isinstance(manifest, TunedManifest) else None
    return contestant if library is None else _as_library(contestant, library, run_library)


def _as_library(contestant: Contestant, library: TunedLibrary, run_library: bool) -> Contestant:
    """Return the library beside a file in its place: that is what was tuned."""
    path = contestant.path.with_name(LIBRARY)
    if not run_library:
        raise TrilobitError(
            f"{path}: machine code of whoever made it; with --run-library it is run, with your rights"
        )
    signature = [asdict(info) for info in library.signature]
    request = {"path": str(path.absolute()), "signature": signature}
    return replace(contestant, path=path, request=request, machine="")


def require_one_machine(placed: Iterable[tuple[str, str]]) -> None:
    """Refuse devices on several machines: whose time is less says nothing of runtimes then, and what disturbs
    one machine does not disturb the other.

    Args:
        placed: devices, each with its machine; empty for this one.

    Raises:
        TrilobitError: they do.
    """
    by_machine: dict[str, dict[str, None]] = {}
    for device, machine in placed:
        by_machine.setdefault(machine or "this machine", {})[device] = None
    if len(by_machine) > 1:
        listed = "; ".join(f"{', '.join(devices)} on {machine}" for machine, devices in by_machine.items())
        raise TrilobitError(
            f"these are several machines, whose times are not compared in one table ({listed}): give "
            "--device of one machine, and a command for each"
        )


def original_of(folder: Path) -> Path:
    """Return the file that was tuned in a folder.

    Raises:
        TrilobitError: it is not there.
    """
    if not is_tune_folder(folder) or not (folder / ORIGINAL).is_file():
        raise TrilobitError(f"{folder}: neither an ONNX file nor the folder of a run or a tune; {GIVE}")
    return folder / ORIGINAL


def example_of(folder: Path) -> Path | None:
    """Return the example that files of a tune are timed on."""
    path = folder / EXAMPLE
    return path if path.is_file() else None


def _on(choice: DeviceChoice, path: Path, network: str, formats: str) -> Contestant:
    request = {
        "path": str(path.absolute()),
        "device": {"name": choice.name, "options": choice.settings},
    }
    title = choice.kind.title or choice.name
    return Contestant(network, formats, path, str(choice), title, request, machine=choice.kind.machine)


def _sealed(path: Path) -> bool:
    return (path.parent / MANIFEST).is_file()


def _mix(manifest: AnyManifest) -> str:
    """Return how many layers have which format, in words."""
    policy = manifest.policy
    counts = Counter(policy.values() if isinstance(policy, Mapping) else [])
    words = [f"{count} {name}" for name, count in counts.most_common() if name != FP32]
    return ", ".join(words) or FP32
