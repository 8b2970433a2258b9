"""The front of a search: measured networks, none of which is worse than another in everything."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from nas.api.exported import read_exported
from nas.export.seal import MANIFEST
from nas.export.selection import best, fastest, pick
from nas.run.configuration import RECORD
from nas.run.frames import frame
from nas.run.front_document import Entry, Measured, Predicted
from nas.run.front_document import Front as FrontFile
from nas.run.reporting import QUIET, Reporter

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

EXPORT = "export"


@dataclass(frozen=True, repr=False)
class Network:
    """One network of a front.

    Attributes:
        entry: what it is, what was predicted of it and what was measured, as `front.json` holds it.
        source: the `front.json` that it comes from.
    """

    entry: Entry
    source: Path

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={measured.value:.4g}" for name, measured in self.measured.items())
        return f"Network({self.id}: {values})"

    @property
    def id(self) -> str:
        """Its id."""
        return self.entry.id

    @property
    def accuracy(self) -> float:
        """Measured share of right labels on the search-validation images.

        Raises:
            TrilobitError: the device does not run it, or its task has another metric.
        """
        return self._value("accuracy")

    @property
    def latency_s(self) -> float:
        """Measured median seconds of one inference, or what a profile says where the device is recorded.

        Raises:
            TrilobitError: the device has no times, or does not run it.
        """
        return self._value("latency")

    @property
    def size_bytes(self) -> float:
        """Bytes of its file.

        Raises:
            TrilobitError: the device does not run it.
        """
        return self._value("size")

    def _value(self, name: str) -> float:
        if (figure := self.entry.measured.get(name)) is not None:
            return figure.value
        why = self.entry.error or f"it has {', '.join(self.entry.measured)}"
        raise TrilobitError(f"{self.id} has no measured {name}: {why}")

    @property
    def measured(self) -> Mapping[str, Measured]:
        """Measured values by objective, in SI units."""
        return self.entry.measured

    @property
    def predicted(self) -> Mapping[str, Predicted]:
        """What was predicted before it was measured, by objective, in SI units."""
        return self.entry.predicted

    @property
    def formats(self) -> Mapping[str, str]:
        """The number format of every layer, by the layer's name."""
        return self.entry.policy

    def save(self, path: str | Path, *, reporter: Reporter = QUIET) -> Path:
        """Export the network to `path`: the ONNX file alone where `path` ends in `.onnx`, else a folder with
        its manifest and model card. It is taken from the run's exports where it is there.

        Raises:
            TrilobitError: the front is not in its run folder, so that there are no weights; or its file
                disagrees with the simulation.
        """
        folder = self.source.parent
        if not (folder / RECORD).exists():
            raise TrilobitError(f"{self.source}: not in its run folder, so its networks have no weights here")
        from nas.run.lock import locked
        from nas.run.run import find_run
        from nas.stages.export import export_networks

        run = find_run(folder)
        exported = run.export_path / self.id
        if run.is_done(EXPORT) and (exported / MANIFEST).is_file():
            return read_exported(exported).save(path)
        with locked(folder), tempfile.TemporaryDirectory() as temporary:
            export_networks(run, (self.id,), 1, Path(temporary), reporter)
            return read_exported(Path(temporary) / self.id).save(path)


@dataclass(frozen=True)
class Front:
    """Networks of which each is better than any other in some objective, the fastest first.

    Attributes:
        path: of `front.json`.
        file: what it holds, all other networks that were measured among it.
    """

    path: Path
    file: FrontFile

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks on the front."""
        return tuple(Network(entry, self.path) for entry in self.file.candidates)

    @property
    def largest(self) -> Network:
        """The largest network of the space in fp32, which percentages refer to.

        Raises:
            TrilobitError: the file is of a version that did not keep it.
        """
        return Network(self.file.largest, self.path)

    def __len__(self) -> int:
        return len(self.file.candidates)

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks)

    def __getitem__(self, name: str) -> Network:
        """Return the network whose id begins with `name`; `knee` is the best compromise.

        Raises:
            TrilobitError: no network is meant, or several are.
        """
        [entry] = pick(self.file, (name,), 1)
        return Network(entry, self.path)

    def best(self, **limits: str | float) -> Network:
        """Return the most accurate network within limits, such as `latency="8ms"`, `size="60%"`.

        Args:
            limits: by objective, as people write them or in SI units; percentages of costs are shares of
                what the largest network has.

        Raises:
            TrilobitError: an unknown objective, a limit that cannot be read, or no network within them.
        """
        return Network(best(self.file, limits), self.path)

    def fastest(self, **limits: str | float) -> Network:
        """Return the quickest network within limits, such as `accuracy="92%"`; see `best`."""
        return Network(fastest(self.file, limits), self.path)

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each network: measured values by objective, predictions beside them, SI units.

        Raises:
            TrilobitError: pandas is not installed.
        """
        return frame([_row(network.entry) for network in self.networks], "id")

    def plot(self) -> "Figure":
        """Return accuracy against cost as a plotly figure: measured and predicted values, apart."""
        from plotly.graph_objects import Figure

        from nas.report.front_figures import front_plot
        from nas.report.run_files import read_run, run_of_front

        folder = self.path.parent
        run = read_run(folder) if (folder / RECORD).exists() else run_of_front(folder, self.file)
        plot = front_plot(replace(run, front=self.file))
        return Figure(plot.figure).update_layout(title=plot.title, height=plot.height_px)


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"id": entry.id}
    row |= {name: figure.value for name, figure in entry.measured.items()}
    row |= {f"predicted_{name}": figure.value for name, figure in entry.predicted.items()}
    formats = list(entry.policy.values())
    return row | {"low_bit": sum(name != "fp32" for name in formats), "layers": len(formats)}


def read_front_file(path: Path) -> Front:
    """Return the front that a `front.json` holds.

    Raises:
        TrilobitError: there is none, it is damaged, or of another version.
    """
    return Front(path, read_document(path, FrontFile))
