"""`front.json` as a noun: networks that were measured, and which of them nothing beats."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import parse_key
from nas.run.documents import Genes, ObjectiveName, genomes_of, not_negative
from nas.search.objectives import OBJECTIVES
from nas.search.units import UNITS
from supernet.space.space import SearchSpace
from supernet.tasks.metric import ACCURACY

LATENCY = "latency"
COSTS = (LATENCY, "size")  # measured of every network of a front, besides the main metric of its task


def _identity(text: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]*", text):  # it names a folder
        raise ValueError(f"an id is letters and digits, got {text[:40]!r}")


Identity = Annotated[str, _identity]


def _count(value: Any) -> None:
    if type(value) is not int or not 0 < value < 10**300:  # spaces have more networks than 64 bits count
        raise ValueError("expected a whole number from 1")


@dataclass(frozen=True)
class Measured:
    """One objective of one network in SI units.

    Attributes:
        value: in SI units.
        std: standard deviation of a share, such as an accuracy.
        iqr: interquartile range of a latency.
        load: of the machine when that was measured.
    """

    value: float
    std: Annotated[float, not_negative] | None = None
    iqr: Annotated[float, not_negative] | None = None
    load: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Return what is known as plain data."""
        return {name: figure for name, figure in vars(self).items() if name == "value" or figure is not None}


@dataclass(frozen=True)
class Predicted:
    """What a model says of one objective of one network.

    Attributes:
        value: in SI units; None where the device cannot run the network.
        std: standard deviation.
    """

    value: float | None
    std: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Return what is known as plain data."""
        return {name: figure for name, figure in vars(self).items() if name == "value" or figure is not None}


@dataclass(frozen=True)
class Layer:
    """One layer by its name in the network, and its key.

    Attributes:
        name: in the network.
        key: operation, shapes and formats, as in a profile.
    """

    name: str
    key: Annotated[str, parse_key]


@dataclass(frozen=True)
class Entry:
    """One network: what it is, what was predicted and what was measured, both by objective name.

    Attributes:
        id: hash of genes and space.
        genes: one number per choice of the space.
        predicted: by objective, in SI units.
        measured: by objective, in SI units.
        arch: the architecture, in words of its family.
        policy: number format by layer.
        layers: what runs, in order.
        error: why the device does not run it, so that nothing was measured; absent where it does.
    """

    id: Identity
    genes: Genes
    predicted: Mapping[str, Predicted]
    measured: Mapping[str, Measured]
    arch: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    error: str | None = None

    def __post_init__(self) -> None:
        for name, stated in OBJECTIVES.items():
            figures: dict[str, Measured | Predicted | None]
            figures = {"measured": self.measured.get(name)} if stated.unit in UNITS else {}
            if stated.origin == "count":
                figures["predicted"] = self.predicted.get(name)  # exact
            for word, figure in figures.items():
                if figure is not None and (figure.value or 0) < 0:
                    raise ValueError(f"{word}.{name}.value: expected at least 0, got {figure.value:g}")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            **{name: part for name, part in asdict(self).items() if name != "error" or part is not None},
            "predicted": {name: figure.to_json() for name, figure in self.predicted.items()},
            "measured": {name: figure.to_json() for name, figure in self.measured.items()},
        }


@dataclass(frozen=True)
class SpaceReference:
    """Which space a front is of.

    Attributes:
        name: as `--space` takes it.
        fingerprint: hash of its choices.
        size: networks in it.
    """

    name: str
    fingerprint: str
    size: Annotated[Any, _count]


@dataclass(frozen=True)
class StatedObjective:
    """One objective of a search and its bound, None without.

    Attributes:
        name: what is traded off.
        bound: limit in SI units.
        unit: of its values.
        direction: `max` where more is better, `min` where less is.
        origin: `metric` of the task, `device` for a cost on the device, `count` over the layers.
    """

    name: ObjectiveName
    bound: float | None = None
    unit: str = ""
    direction: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Round:
    """One round of a search: measured networks so far, and the hypervolume of their front.

    Attributes:
        round: its number.
        evaluations: networks measured so far.
        hypervolume: of their front, as a share of the box.
        rejected: candidates that the device cannot run.
    """

    round: int
    evaluations: int
    hypervolume: float
    rejected: int = 0


@dataclass(frozen=True)
class Front:
    """`front.json`.

    Attributes:
        space: which space was searched.
        device: what latency was measured on.
        objectives: in order.
        rounds: of the search.
        candidates: the front.
        evaluated: all other networks that were measured, or that the device could not run.
        reference: the largest network in fp32; None in files of version 0.1.
        foreseen: whether accuracies were predicted before they were measured; False before 0.2.
        metric: the main metric of the task, which was predicted and measured.
        reference_point: a value per objective, which the hypervolume is counted from.
        hypervolume: of the front, in the product of the units of its objectives.
    """

    SCHEMA: ClassVar[str] = "front/1"
    REMEDY: ClassVar[str] = "run `nas search` again: what is measured stays in the storage"

    space: SpaceReference
    device: str
    objectives: tuple[StatedObjective, ...]
    rounds: tuple[Round, ...]
    candidates: tuple[Entry, ...]
    evaluated: tuple[Entry, ...]
    reference: Entry | None = None
    foreseen: bool = False
    metric: ObjectiveName = ACCURACY.name
    reference_point: tuple[float, ...] = ()
    hypervolume: float | None = None

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("candidates: expected at least one network")

    @property
    def largest(self) -> Entry:
        """Return the network that all are compared with.

        Raises:
            TrilobitError: it is not there.
        """
        if self.reference is None:
            raise TrilobitError(f"front.json: no reference network; {self.REMEDY}")
        return self.reference

    @property
    def always_measured(self) -> tuple[str, ...]:
        """Names of the objectives that every network that ran has measured values of; time too, unless none
        has.
        """
        entries = (*self.candidates, *self.evaluated, *filter(None, [self.reference]))
        timed = any(LATENCY in entry.measured for entry in entries)
        return (self.metric, *(cost for cost in COSTS if timed or cost != LATENCY))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; networks beside the front without their layers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **plain,
            "space": asdict(self.space),
            "objectives": [asdict(objective) for objective in self.objectives],
            "rounds": [asdict(summary) for summary in self.rounds],
            "reference": self.reference and self.reference.to_json(),
            "candidates": [entry.to_json() for entry in self.candidates],
            "evaluated": [
                {key: value for key, value in entry.to_json().items() if key != "layers"}
                for entry in self.evaluated
            ],
        }

    def measured(self, *names: str) -> NDArray[np.float64]:
        """Return (n, names) measured values of the candidates; NaN where one is missing."""
        figures = [[entry.measured.get(name) for name in names] for entry in self.candidates]
        rows = [[np.nan if figure is None else figure.value for figure in row] for row in figures]
        return np.array(rows, np.float64)


def read_front(path: Path, space: SearchSpace) -> Front:
    """Return the front of a run, checked to be of its space and measured.

    Raises:
        TrilobitError: there is none, it is damaged, or it is of another space.
    """
    front = read_document(path, Front)
    if front.space.fingerprint != space.fingerprint:
        raise TrilobitError(f"{path}: of another space; run `nas search` again")
    entries = (*front.candidates, *front.evaluated, front.largest)
    genomes = genomes_of(path, [entry.genes for entry in entries], space)
    for entry, genome in zip(entries, genomes, strict=True):
        if entry.id != (own_id := space.candidate(genome).id):
            raise TrilobitError(f"{path}: network {entry.id} has the genes of {own_id}; {front.REMEDY}")
        missing = set(front.always_measured) - set(entry.measured)
        if missing and (entry.error is None or entry in front.candidates):
            missed = sorted(missing)[0]
            raise TrilobitError(f"{path}: network {entry.id}: no measured {missed}; {front.REMEDY}")
    return front
