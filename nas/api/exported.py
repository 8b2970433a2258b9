"""Exported networks: folders that hold an ONNX file, what was measured through it, and hashes of both."""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from nas.export.library.library import LIBRARY
from nas.export.manifest import Manifest, read_manifest
from nas.export.seal import MANIFEST, MODEL_FILE
from nas.export.written import written_networks
from nas.run.frames import frame
from supernet.tasks.metric import ACCURACY

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LibraryFigures:
    """What the library of an exported network does, where the machine that exported it ran it.

    Attributes:
        test_value: the main metric on the test part, through the library.
        latency_s, iqr_s: median and interquartile range, measured by itself.
        size_bytes: of it.
        integer_only: whether it has no floating-point operation between what it reads and its answer.
    """

    test_value: float
    latency_s: float
    iqr_s: float
    size_bytes: int
    integer_only: bool


@dataclass(frozen=True)
class ExportedNetwork:
    """One exported network.

    Attributes:
        folder: that holds it.
        id: of the network.
        test_value: the main metric on `test_images` examples of the test part, through the file.
        latency_s, iqr_s: median and interquartile range, measured interleaved with the others at export; None
            where the device has no times.
        of_largest: ratio to the space's largest network in fp32, in the same run; None where the device
            cannot run that.
        size_bytes: of the ONNX file.
        low_bit, layers: layers in fewer bits than 32, and all layers that have a format.
        load: of the machine when the latency was measured; None where unknown.
        replayed: whether the latency was looked up in a profile, not measured.
        quality: other metrics on the test part, by name, compared with the space's largest in fp32.
        metric: the main one.
        error: standard error of `test_value`; None of files that do not say it.
        library: its library; None without, and where that was never run.
        memory: bytes that it needs on a microcontroller, `arena` and `flash`; empty where nobody asked.
    """

    folder: Path
    id: str
    test_value: float
    test_images: int
    latency_s: float | None
    iqr_s: float | None
    of_largest: float | None
    size_bytes: int
    low_bit: int
    layers: int
    load: float | None = None
    replayed: bool = False
    quality: Mapping[str, float] = field(default_factory=dict)
    metric: str = ACCURACY.name
    error: float | None = None
    library: LibraryFigures | None = None
    memory: Mapping[str, float] = field(default_factory=dict)

    @property
    def standard_error(self) -> float:
        """Standard error of `test_value`, the test examples being a sample; where the manifest lacks it,
        the binomial one of a share.
        """
        if self.error is not None:
            return self.error
        return math.sqrt(max(0.0, self.test_value * (1 - self.test_value)) / self.test_images)

    @property
    def test_accuracy(self) -> float:
        """Share of right labels among `test_images`, through the file.

        Raises:
            TrilobitError: it is judged by another metric.
        """
        if self.metric != ACCURACY.name:
            raise TrilobitError(f"{self.id} is judged by {self.metric}; its value is `test_value`")
        return self.test_value

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / MODEL_FILE

    @property
    def manifest(self) -> Manifest:
        """Everything that was measured of it.

        Raises:
            TrilobitError: the file is gone, or was changed into something that is no manifest.
        """
        return read_manifest(self.folder)

    def save(self, path: str | Path) -> Path:
        """Copy the ONNX file to `path`, or the whole folder where `path` does not end in `.onnx`.

        Raises:
            TrilobitError: there is such a folder already.
        """
        target = Path(path)
        if target.suffix == ".onnx":
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, self.model.read_bytes())
            return target
        if target.exists():
            raise TrilobitError(
                f"{target}: exists already; give another folder, or a file that ends in .onnx"
            )
        shutil.copytree(self.folder, target)
        return target


@dataclass(frozen=True)
class Exported:
    """Exported networks, the fastest first; without times those that need least memory."""

    networks: tuple[ExportedNetwork, ...]

    def __len__(self) -> int:
        return len(self.networks)

    def __iter__(self) -> Iterator[ExportedNetwork]:
        return iter(self.networks)

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each network, in SI units.

        Raises:
            TrilobitError: pandas is not installed.
        """
        return frame([_row(network) for network in self.networks], "id")


def _row(network: ExportedNetwork) -> dict[str, Any]:
    apart = ("quality", "test_value", "metric", "error", "library", "memory")
    values = {name: value for name, value in vars(network).items() if name not in apart}
    tested = {f"test_{network.metric}": network.test_value, "standard_error": network.standard_error}
    timed = {} if network.library is None else {"library_latency_s": network.library.latency_s}
    return {**values, **tested, **network.quality, **network.memory, **timed}


def read_exported(folder: Path) -> ExportedNetwork:
    """Return the exported network in a folder; whether its manifest tells the truth is `verify`'s question.

    Raises:
        TrilobitError: there is none, or its manifest is of another version.
    """
    return exported_network(folder, read_manifest(folder))


def exported_network(folder: Path, manifest: Manifest) -> ExportedNetwork:
    """Return the figures of one manifest."""
    accuracy, latency, formats = manifest.accuracy, manifest.latency, manifest.policy.values()
    return ExportedNetwork(
        folder,
        manifest.id,
        accuracy.test,
        accuracy.n,
        latency.median_s if latency else None,
        latency.iqr_s if latency else None,
        latency.ratios.get("largest/fp32") if latency else None,
        manifest.files[MODEL_FILE].bytes,
        sum(number_format != "fp32" for number_format in formats),
        len(formats),
        latency.load if latency else None,
        latency.replayed if latency else False,
        manifest.quality,
        manifest.metric,
        accuracy.error,
        _library_figures(manifest),
        manifest.memory,
    )


def _library_figures(manifest: Manifest) -> LibraryFigures | None:
    record, file = manifest.library, manifest.files.get(LIBRARY)
    if record is None or file is None or record.latency is None or record.test_accuracy is None:
        return None
    latency = record.latency
    return LibraryFigures(
        record.test_accuracy, latency.median_s, latency.iqr_s, file.bytes, record.integer_only
    )


def read_exports(folder: Path) -> Exported:
    """Return all exported networks in a folder; none where there are none."""
    networks = map(read_exported, written_networks(folder, MANIFEST))
    return Exported(tuple(sorted(networks, key=_cost)))


def _cost(network: ExportedNetwork) -> float:
    """Return what networks are in the order of: time, or what they need where there is none."""
    if network.latency_s is not None:
        return network.latency_s
    return next(iter(network.memory.values()), network.size_bytes)
