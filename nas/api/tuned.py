"""What `nas.tune` returns: files of one's own model, each measured, none of which another beats."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from nas.run.frames import frame
from nas.run.tuned_document import MeasuredLatency, TunedFront, TunedNetwork, cost_of, shown_costs
from nas.search.limits import parse_limit
from nas.search.objectives import Objective, violation
from nas.search.units import show

if TYPE_CHECKING:
    import pandas as pd

PLAIN = {"s": "s", "bytes": "B"}  # by unit, what stands behind a plain number


@dataclass(frozen=True, repr=False)
class TunedFile:
    """One file of a front.

    Attributes:
        entry: what it is and what was measured of it, as `front.json` holds it.
        source: the `front.json` that it comes from.
        metric: name of the main metric of its answers.
    """

    entry: TunedNetwork
    source: Path
    metric: str

    def __repr__(self) -> str:
        cost = (
            f"size={self.size_bytes:.4g}" if self.entry.latency is None else f"latency={self.latency_s:.4g}"
        )
        return f"TunedFile({self.id}: {self.metric}={self.quality:.4g}, {cost})"

    @property
    def id(self) -> str:
        """Its id."""
        return self.entry.id

    @property
    def latency(self) -> MeasuredLatency:
        """Measured, in turns with the original.

        Raises:
            TrilobitError: nothing was timed.
        """
        if self.entry.latency is None:
            raise TrilobitError(f"{self.id} was not timed; it has {', '.join(self.memory)} and size")
        return self.entry.latency

    @property
    def latency_s(self) -> float:
        """Median seconds of one inference."""
        return self.latency.median_s

    @property
    def size_bytes(self) -> float:
        """Bytes of the file."""
        return self.entry.size_bytes

    @property
    def memory(self) -> Mapping[str, float]:
        """Bytes that it needs on a microcontroller, `arena` and `flash`; empty where nobody asked."""
        return self.entry.memory

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of its answers by name, on examples that nothing saw before."""
        part = self.entry.judging or self.entry.choosing
        return {name: figure.value for name, figure in part.metrics.items()}

    @property
    def quality(self) -> float:
        """The main one of these."""
        return self.metrics[self.metric]

    def save(self, path: str | Path) -> Path:
        """Write the file to `path`: an ONNX file, or a library where the device has own kernels.

        Raises:
            TrilobitError: the front is not in its folder, so that there are no weights.
        """
        from hw_profiles.files import write_atomic
        from nas.tune.session import stored_file

        target = Path(path)
        write_atomic(target, stored_file(self.source.parent, self.entry.policy))
        return target

    @property
    def formats(self) -> Mapping[str, str]:
        """Number format by unit; units that are not named are in fp32."""
        return self.entry.policy


@dataclass(frozen=True)
class TunedFiles:
    """The front of a tune, the fastest file first.

    Attributes:
        path: of `front.json`.
        file: what it holds, the references and all other measured policies among it.
    """

    path: Path
    file: TunedFront

    @property
    def files(self) -> tuple[TunedFile, ...]:
        """The files on the front."""
        return tuple(TunedFile(entry, self.path, self.file.metric.name) for entry in self.file.candidates)

    def __len__(self) -> int:
        return len(self.file.candidates)

    def __iter__(self) -> Iterator[TunedFile]:
        return iter(self.files)

    def __getitem__(self, name: str) -> TunedFile:
        """Return the file whose id begins with `name`.

        Raises:
            TrilobitError: no file is meant, or several are.
        """
        meant = [file for file in self.files if file.id.startswith(name)]
        if len(meant) != 1:
            ids = ", ".join(file.id for file in self.files)
            raise TrilobitError(f"{name!r} means {len(meant)} files of the front; there are {ids}")
        return meant[0]

    def best(self, **limits: str | float) -> TunedFile:
        """Return the file of the best main metric within limits, such as `latency="8ms"`, `size="60%"` of the
        original's, `agreement="99%"`.

        Raises:
            TrilobitError: an unknown name, a limit that cannot be read, or no file within them.
        """
        files = self.files
        table = {o.name: o for o in self._objectives()}
        bounded = [self._bounded(table, name, str(limit)) for name, limit in limits.items()]
        values = np.array([[_value(file, o.name) for o in bounded] for file in files], np.float64)
        missed = violation(bounded, values.reshape(len(files), len(bounded)))
        if missed.min() > 0:
            nearest = files[int(missed.argmin())]
            has = ", ".join(f"{o.name} {show(o, _value(nearest, o.name))}" for o in bounded)
            raise TrilobitError(f"no file is within these limits; the nearest one, {nearest.id}, has {has}")
        main = table[self.file.metric.name]
        quality = main.to_min(np.array([file.quality for file in files]))
        return files[int(np.where(missed > 0, np.inf, quality).argmin())]

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each file: what was measured, SI units.

        Raises:
            TrilobitError: pandas is not installed.
        """
        return frame([_row(file) for file in self.files], "id")

    def _objectives(self) -> Iterator[Objective]:
        for cost in shown_costs(self.file):
            yield Objective(cost.name, cost.unit, "min", origin="device")
        for metric in self.file.metrics:
            yield Objective(metric.name, metric.unit, "max" if metric.direction == "max" else "min")

    def _bounded(self, table: Mapping[str, Objective], name: str, text: str) -> Objective:
        if name not in table:
            raise TrilobitError(f"unknown limit {name!r}; there are {', '.join(table)}")
        original = self.file.original
        stated, metrics = table[name], {metric.name for metric in self.file.metrics}
        whole = None if name in metrics else cost_of(original, name)
        text = f"{text}{PLAIN[stated.unit]}" if stated.unit in PLAIN and _is_number(text) else text
        bound = parse_limit(text, stated).resolve(whole or 0.0)
        return Objective(stated.name, stated.unit, stated.direction, bound, stated.origin)


@dataclass(frozen=True)
class TuneFolder:
    """What a tune has left in its folder so far.

    Attributes:
        path: of the folder.
    """

    path: Path

    @property
    def front(self) -> TunedFiles:
        """The files that none beats.

        Raises:
            TrilobitError: there are none yet.
        """
        return read_tuned_file(self.path / "front.json")

    def best(self, **limits: str | float) -> TunedFile:
        """Return the file of the best main metric within limits; see `TunedFiles.best`."""
        return self.front.best(**limits)

    def report(self) -> Path:
        """Write `report.html` and return its path."""
        from nas.report import write_report

        return write_report(self.path)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("e-", "", 1).isdigit()


def _value(file: TunedFile, name: str) -> float:
    if name in file.metrics:
        return file.metrics[name]
    value = cost_of(file.entry, name)
    return np.inf if value is None else value


def _row(file: TunedFile) -> dict[str, Any]:
    row: dict[str, Any] = {"id": file.id}
    if file.entry.latency is not None:
        row |= {"latency": file.latency_s, "ratio": file.latency.ratio}
    row |= {"size": file.size_bytes, **file.memory, **file.metrics}
    counts = dict.fromkeys(file.formats.values(), 0)
    for name in file.formats.values():
        counts[name] += 1
    return row | {"low_bit": len(file.formats), "formats": counts}


def read_tuned_file(path: Path) -> TunedFiles:
    """Return the front that a `front.json` of a tune holds.

    Raises:
        TrilobitError: there is none, it is damaged, or of another version.
    """
    return TunedFiles(path, read_document(path, TunedFront))
