"""The files of a run folder as frozen data. Only `run.toml` must be there."""

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json
from hw_profiles.workload import LayerSpec, parse_key

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """One objective of one network in SI units: a share, seconds, bytes.

    Attributes:
        value: the mean or the median.
        spread: standard deviation of a prediction or an accuracy, interquartile range of a latency, or None.
    """

    value: float
    spread: float | None = None


@dataclass(frozen=True)
class Network:
    """One candidate: what it is, what was predicted and what was measured; both by objective name."""

    id: str
    arch: Document
    policy: Mapping[str, str]
    layers: tuple[tuple[str, LayerSpec], ...]
    predicted: Mapping[str, Value]
    measured: Mapping[str, Value]


@dataclass(frozen=True)
class Export:
    """One exported network, measured through the shipped file.

    Attributes:
        id: of the candidate.
        path: of the model, relative to the run folder.
        size_bytes: of the model file.
        memory_bytes: most bytes of tensors alive at once; None in files of versions that did not count it.
        accuracy, images: on the test part, and how many images that has.
        latency: median and interquartile range, seconds.
        reference_s: median of the reference network; None if unknown.
    """

    id: str
    path: str
    size_bytes: int
    memory_bytes: float | None
    accuracy: float
    images: int
    latency: Value
    reference_s: float | None


@dataclass(frozen=True)
class Run:
    """Everything the report reads. A document is None where its stage has not run."""

    folder: Path
    config: Document
    env: Document | None
    profile: Document | None
    quality: Document | None
    front: Document | None
    timings: Document | None
    candidates: tuple[Network, ...]
    evaluated: tuple[Network, ...]
    reference: Network | None
    exports: tuple[Export, ...]

    @property
    def device(self) -> str:
        """Name of the target device."""
        return str(self.config.get("device", {}).get("name", "unknown device"))

    @property
    def limits(self) -> dict[str, float]:
        """Bounds of the search by objective name, in SI units."""
        objectives = self.front["objectives"] if self.front else ()
        return {one["name"]: one["bound"] for one in objectives if one["bound"] is not None}


def read_run(folder: Path) -> Run:
    """All there is in a run folder.

    Raises:
        TrilobitError: not a run folder, or a file in it is broken or of another schema.
    """
    config = _read_config(folder / "run.toml")
    front = _optional(folder / "front.json", "front/1")
    reference = front.get("reference") if front else None
    manifests = sorted((folder / "export").glob("*/manifest.json"))
    exports = [_export(folder, path, read_json(path, "export/2")) for path in manifests]
    return Run(
        folder=folder,
        config=config,
        env=_optional(folder / "env.json", "env/1"),
        profile=_profile(folder, front),
        quality=_optional(folder / "quality.json", "quality/2"),
        front=front,
        timings=_optional(folder / "timings.json", "timings/1"),
        candidates=_networks(front, "candidates"),
        evaluated=_networks(front, "evaluated"),
        reference=_network(reference) if reference else None,
        exports=tuple(sorted(exports, key=lambda export: export.latency.value)),
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


def _profile(folder: Path, front: Document | None) -> Document | None:
    """The profile that the front was searched on; before there is one, the only profile there is."""
    paths = sorted((folder / "profiles").glob("*.json"))
    if front is not None:
        paths = [path for path in paths if path.stem == front["device"]]
    return read_json(paths[0], "profile/1") if paths else None


def _optional(path: Path, schema: str) -> Document | None:
    return read_json(path, schema) if path.exists() else None


def _networks(front: Document | None, kind: str) -> tuple[Network, ...]:
    entries: Sequence[Document] = front.get(kind, ()) if front else ()
    return tuple(_network(entry) for entry in entries)


def _network(entry: Document) -> Network:
    return Network(
        id=str(entry["id"]),
        arch=entry.get("arch", {}),
        policy=entry.get("policy", {}),
        layers=tuple((layer["name"], parse_key(layer["key"])) for layer in entry.get("layers", ())),
        predicted=_values(entry.get("predicted")),
        measured=_values(entry.get("measured")),
    )


def _values(entries: Document | None) -> dict[str, Value]:
    """What is known; a device that cannot run a network has no latency for it, or the largest float."""
    return {
        name: Value(entry["value"], entry.get("iqr", entry.get("std")))
        for name, entry in (entries or {}).items()
        if entry and entry.get("value") is not None and entry["value"] < sys.float_info.max
    }


def _export(folder: Path, path: Path, manifest: Document) -> Export:
    name, model = next(iter(manifest["files"].items()))  # the ONNX file, before what else is shipped
    latency, accuracy = manifest["latency"], manifest["accuracy"]
    return Export(
        id=str(manifest["id"]),
        path=(path.parent / name).relative_to(folder).as_posix(),
        size_bytes=int(model["bytes"]),
        memory_bytes=manifest["predicted"].get("memory", {}).get("value"),
        accuracy=accuracy["test"],
        images=accuracy["n"],
        latency=Value(latency["median_s"], latency.get("iqr_s")),
        reference_s=latency["references_s"].get("largest/fp32"),
    )
