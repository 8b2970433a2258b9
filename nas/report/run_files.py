"""The files of a run folder as frozen data. Only `run.toml` must be there."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.runtimes.plugin import device_kind
from nas.checks.check import TextInput
from nas.export.manifest import read_manifest
from nas.export.seal import MANIFEST, MODEL_FILE
from nas.export.written import written_networks
from nas.run.documents import Environment, QualityFile, Timings, read_optional
from nas.run.front_document import LATENCY, Entry, Front
from nas.search.objectives import OBJECTIVES
from supernet.tasks.metric import ACCURACY

Document = Mapping[str, Any]
MEASURED = "measured"
FAILED = 2.0**62  # seconds, or bytes: earlier versions wrote such numbers where there was none
TEXT_SOURCES = ("python-tokens", "python-bytes", "text", "csv")


@dataclass(frozen=True)
class Value:
    """One objective of one network in SI units: a share, seconds, bytes.

    Attributes:
        value: the mean or the median.
        spread: standard deviation of a prediction or an accuracy, interquartile range of a latency, or None.
        load: of the machine when a latency was measured, or None.
    """

    value: float
    spread: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class Network:
    """One candidate: what it is, what was predicted and what was measured; both by objective name."""

    id: str
    arch: Document
    policy: Mapping[str, str]
    layers: tuple[tuple[str, Layer], ...]
    predicted: Mapping[str, Value]
    measured: Mapping[str, Value]

    @property
    def counted(self) -> Mapping[str, Value]:
        """What follows from the layers alone: exact, though nothing was measured."""
        figures = self.predicted.items()
        return {n: v for n, v in figures if n in OBJECTIVES and OBJECTIVES[n].origin == "count"}


@dataclass(frozen=True)
class Export:
    """One exported network, measured through the exported file.

    Attributes:
        id: of the candidate.
        path: of the model, relative to the run folder.
        size_bytes: of the model file.
        memory_bytes: most bytes of tensors alive at once; None in files of versions that did not count it.
        metric: the main one.
        accuracy, error: its value on the test part, and the standard error of that.
        images: how many examples that has.
        text: whether it reads text, not images.
        micro: bytes that it needs on a microcontroller, `arena` and `flash`; empty where nobody asked.
        quality: its other metrics on the test part, by name; empty in files of versions without them.
        latency: median and interquartile range, seconds; None where the device has no times.
        reference_s: median of the reference network; None if unknown.
    """

    id: str
    path: str
    size_bytes: int
    memory_bytes: float | None
    accuracy: float
    images: int
    latency: Value | None
    reference_s: float | None
    quality: Mapping[str, float] = field(default_factory=dict)
    metric: str = ACCURACY.name
    error: float = 0.0
    text: bool = False
    micro: Mapping[str, float] = field(default_factory=dict)

    def cost(self, name: str) -> float:
        """Return what it costs by an objective, in SI units: its time, or what was counted."""
        if name == LATENCY and self.latency is not None:
            return self.latency.value
        return self.micro.get(name, self.size_bytes)


@dataclass(frozen=True)
class Run:
    """Everything the report reads. A document is None where its stage has not run."""

    folder: Path
    config: Document
    env: Environment | None
    profile: DeviceProfile | None
    quality: QualityFile | None
    front: Front | None
    timings: Timings | None
    candidates: tuple[Network, ...]
    evaluated: tuple[Network, ...]
    reference: Network | None
    exports: tuple[Export, ...]

    @property
    def metric(self) -> str:
        """Name of the main metric of the task."""
        return self.front.metric if self.front else ACCURACY.name

    @property
    def examples(self) -> str:
        """What the data is made of, in a word."""
        source = str(self.config.get("data", {}).get("source", "")).partition(":")[0]
        return "texts" if any(e.text for e in self.exports) or source in TEXT_SOURCES else "images"

    @property
    def device(self) -> str:
        """Name of the target device."""
        return str(self.config.get("device", {}).get("name", "unknown device"))

    @property
    def latencies(self) -> str:
        """How latencies were found: `measured` on the device, `replayed` from a profile that was recorded
        on it, `modelled`, `published` or `reported`; `none` where there are none.
        """
        figures = self.profile.device.figures if self.profile else MEASURED
        return "replayed" if figures == MEASURED and not _executes(self.device) else figures

    @property
    def timeless(self) -> bool:
        """Whether the device has no times."""
        return self.latencies == "none"

    @property
    def limits(self) -> dict[str, float]:
        """Bounds of the search by objective name, in SI units."""
        objectives = self.front.objectives if self.front else ()
        return {objective.name: objective.bound for objective in objectives if objective.bound is not None}


def _executes(device: str) -> bool:
    """Return whether a device of that name runs networks, as far as is known here."""
    try:
        return device_kind(device.partition(":")[0]).artifact is not None
    except TrilobitError:  # of a plug-in that is not installed here
        return True


def read_run(folder: Path) -> Run:
    """Read all there is in a run folder.

    Raises:
        TrilobitError: not a run folder, or a file in it is broken or of another schema.
    """
    config = _read_config(folder / "run.toml")
    front = read_optional(folder / "front.json", Front)
    exports = [_export(folder, path) for path in written_networks(folder / "export", MANIFEST)]
    return Run(
        folder=folder,
        config=config,
        env=read_optional(folder / "env.json", Environment),
        profile=_profile(folder, front),
        quality=read_optional(folder / "quality.json", QualityFile),
        front=front,
        timings=read_optional(folder / "timings.json", Timings),
        candidates=tuple(map(_network, front.candidates)) if front else (),
        evaluated=tuple(map(_network, front.evaluated)) if front else (),
        reference=_network(front.reference) if front and front.reference else None,
        exports=tuple(sorted(exports, key=_cost)),
    )


def _cost(export: Export) -> float:
    """Return what exported networks are in the order of: time, or what they need where there is none."""
    return export.cost(LATENCY if export.latency is not None else next(iter(export.micro), ""))


def run_of_front(folder: Path, front: Front) -> Run:
    """Return a run of which only the front is known."""
    candidates, evaluated = (tuple(map(_network, entries)) for entries in (front.candidates, front.evaluated))
    reference = _network(front.reference) if front.reference else None
    return Run(
        folder=folder,
        config={},
        env=None,
        profile=None,
        quality=None,
        front=front,
        timings=None,
        candidates=candidates,
        evaluated=evaluated,
        reference=reference,
        exports=(),
    )


def _read_config(path: Path) -> Document:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise TrilobitError(
            f"{path}: no such file; a report needs the folder of a run, which `nas run` makes"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrilobitError(
            f"{path}: not valid TOML ({error}); start the run again with its config"
        ) from None


def _profile(folder: Path, front: Front | None) -> DeviceProfile | None:
    """Load the profile that the front was searched on; before there is one, the only profile there is."""
    paths = sorted((folder / "profiles").glob("*.json"))
    if front is not None:
        paths = [path for path in paths if path.stem == front.device]
    return load_profile(paths[0]) if paths else None


def _network(entry: Entry) -> Network:
    return Network(
        id=entry.id,
        arch=entry.arch,
        policy=entry.policy,
        layers=tuple((layer.name, parse_key(layer.key)) for layer in entry.layers),
        predicted={
            name: Value(figure.value, figure.std)
            for name, figure in entry.predicted.items()
            if figure.value is not None
        },
        measured={
            name: Value(figure.value, figure.std if figure.iqr is None else figure.iqr, figure.load)
            for name, figure in entry.measured.items()
            if figure.value < FAILED  # else the device failed to run it, in a file of an earlier version
        },
    )


def _export(folder: Path, exported: Path) -> Export:
    manifest = read_manifest(exported)
    memory, latency = manifest.predicted.get("memory"), manifest.latency
    return Export(
        id=manifest.id,
        path=(exported / MODEL_FILE).relative_to(folder).as_posix(),
        size_bytes=manifest.files[MODEL_FILE].bytes,
        memory_bytes=None if memory is None else memory.value,
        accuracy=manifest.accuracy.test,
        images=manifest.accuracy.n,
        latency=Value(latency.median_s, latency.iqr_s, latency.load) if latency else None,
        reference_s=latency.references_s.get("largest/fp32") if latency else None,
        micro=manifest.memory,
        quality=manifest.quality,
        metric=manifest.metric,
        error=manifest.accuracy.standard_error,
        text=isinstance(manifest.input, TextInput),
    )
