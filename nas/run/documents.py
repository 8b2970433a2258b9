"""The documents of a run folder as nouns: what each file holds is said here and nowhere else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import D, read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import parse_key
from nas.search.objectives import OBJECTIVES, objective
from nas.search.units import UNITS
from predictors.assessment.learning_curve import CurvePoint
from predictors.assessment.quality import Quality
from supernet.space.space import Genomes, SearchSpace
from supernet.tasks.metric import ACCURACY

COSTS = ("latency", "size")  # measured of every network of a front, besides the main metric of its task
MOST_OPTIONS = 2**15  # of one choice: genes are int16


def _gene(value: int) -> None:
    if not 0 <= value < MOST_OPTIONS:
        raise ValueError(f"a gene is from 0 to {MOST_OPTIONS - 1}, got {value}")


def _identity(text: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]*", text):  # it names a folder
        raise ValueError(f"an id is letters and digits, got {text[:40]!r}")


def _not_negative(value: float) -> None:
    if value < 0:
        raise ValueError(f"expected at least 0, got {value:g}")


def _count(value: Any) -> None:
    if type(value) is not int or not 0 < value < 10**300:  # spaces have more networks than 64 bits count
        raise ValueError("expected a whole number from 1")


def _objective(name: str) -> None:
    objective(name)  # refuses what is none


Genes = tuple[Annotated[int, _gene], ...]
ObjectiveName = Annotated[str, _objective]


def read_optional(path: Path, kind: type[D]) -> D | None:
    """Return the noun that the file at `path` holds; None where there is no such file.

    Raises:
        TrilobitError: as `read_document`.
    """
    return read_document(path, kind) if path.exists() else None


def genomes_of(path: Path, rows: Sequence[Genes], space: SearchSpace) -> Genomes:
    """Return (n, g) the genomes that a document at `path` holds.

    Raises:
        TrilobitError: one is not of this space.
    """
    if any(len(row) != len(space.choices) for row in rows):
        raise TrilobitError(f"{path}: genes of another space than {space.fingerprint}; write it again")
    genomes = np.array(rows, np.int16).reshape(len(rows), len(space.choices))
    if (genomes >= space.cardinalities).any():
        raise TrilobitError(f"{path}: a gene is outside its choice's options; write it again")
    return genomes


# -- which stages are done ----------------------------------------------------------------------------


@dataclass(frozen=True)
class StageDone:
    """One finished stage.

    Attributes:
        fingerprint: of everything its result depends on.
        seconds: how long it took.
    """

    fingerprint: str
    seconds: Annotated[float, _not_negative]


@dataclass(frozen=True)
class State:
    """`state.json`.

    Attributes:
        stages: finished stages by name.
    """

    SCHEMA: ClassVar[str] = "state/1"
    REMEDY: ClassVar[str] = "delete it and run the command again: what is finished is found again"

    stages: Mapping[str, StageDone] = field(default_factory=dict)


@dataclass(frozen=True)
class Timings:
    """`timings.json`: seconds by stage."""

    SCHEMA: ClassVar[str] = "timings/1"
    REMEDY: ClassVar[str] = "delete it; `nas run` writes it again"

    stages: Mapping[str, Annotated[float, _not_negative]]


@dataclass(frozen=True)
class Environment:
    """`env.json`: what the last command ran with.

    Attributes:
        integer_sums, formats: what the run's device does with large sums, and what its layers choose from by
            that: workers round weights for it, whatever processor they have. None and none in folders from
            before this was written.
        versions: of trilobit and the packages in use.
        seed: of everything random.
        date: UTC, when the command began.
    """

    SCHEMA: ClassVar[str] = "env/1"
    REMEDY: ClassVar[str] = "delete it; every command writes it again"

    versions: Mapping[str, str]
    seed: int
    date: str = ""
    integer_sums: Literal["exact", "saturating", "unknown"] | None = None
    formats: tuple[str, ...] = ()


# -- samples and predictors ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Enough:
    """Why no more of one kind were evaluated.

    Attributes:
        name, n, most: the kind, how many were evaluated and how many could have been.
        why: in words.
        gain: of Kendall's tau that the next batch promised; None where no curve was drawn.
        curve: held-out error of the sampler's own model after learning from some, and from all; on the scale
            of `evened`.
    """

    name: str
    n: int
    most: int
    why: str
    gain: float | None = None
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True)
class SamplesFile:
    """`samples.json`: what was evaluated, in order, and why no more was.

    Attributes:
        fingerprint: of everything that the samples depend on.
        strategy: how they were chosen.
        kinds: fp32 and quantized: how many, and why no more.
        genes: of every sample, in the order of evaluation.
    """

    SCHEMA: ClassVar[str] = "samples/1"
    REMEDY: ClassVar[str] = "run `nas sample` again: what is evaluated stays in the storage"

    fingerprint: str
    strategy: str
    kinds: tuple[Enough, ...]
    genes: tuple[Genes, ...]


@dataclass(frozen=True)
class DamageFile:
    """`damage.json`: what every option of a choice of formats costs alone, by the choice's name."""

    SCHEMA: ClassVar[str] = "damage/1"
    REMEDY: ClassVar[str] = "delete it; it is measured again"

    supernet: str
    options: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class QualityRow(Quality):
    """How good the predictions of one objective are on networks of one origin.

    Attributes:
        objective: which figure was predicted.
        source: where the networks are from: `cross-validation`, `profile` or `finalists`.
    """

    objective: ObjectiveName
    source: str


@dataclass(frozen=True)
class QualityFile:
    """`quality.json`.

    Attributes:
        predictor: name of the accuracy predictor.
        rows: one per objective and origin of the networks.
    """

    SCHEMA: ClassVar[str] = "quality/2"
    REMEDY: ClassVar[str] = "run `nas fit` again"

    predictor: str
    rows: tuple[QualityRow, ...]


# -- the front ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One objective of one network in SI units.

    Attributes:
        value: in SI units; the largest float where the device failed to run the network.
        std: standard deviation of a share, such as an accuracy.
        iqr: interquartile range of a latency.
        load: of the machine when that was measured.
    """

    value: float
    std: Annotated[float, _not_negative] | None = None
    iqr: Annotated[float, _not_negative] | None = None
    load: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """Return what is known as plain data."""
        return {name: known for name, known in vars(self).items() if name == "value" or known is not None}


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
        return {name: known for name, known in vars(self).items() if name == "value" or known is not None}


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
    """

    id: Annotated[str, _identity]
    genes: Genes
    predicted: Mapping[str, Predicted]
    measured: Mapping[str, Measured]
    arch: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        for name, stated in OBJECTIVES.items():
            known: dict[str, Measured | Predicted | None]
            known = {"measured": self.measured.get(name)} if stated.unit in UNITS else {}
            if stated.origin == "count":
                known["predicted"] = self.predicted.get(name)  # exact
            for word, figure in known.items():
                if figure is not None and (figure.value or 0) < 0:
                    raise ValueError(f"{word}.{name}.value: expected at least 0, got {figure.value:g}")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            **asdict(self),
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
        evaluated: all other measured networks.
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
        """Names of the objectives that every network has measured values of."""
        return (self.metric, *COSTS)

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
        if entry.id != (known := space.candidate(genome).id):
            raise TrilobitError(f"{path}: network {entry.id} has the genes of {known}; {front.REMEDY}")
        if missing := set(front.always_measured) - set(entry.measured):
            missed = sorted(missing)[0]
            raise TrilobitError(f"{path}: network {entry.id}: no measured {missed}; {front.REMEDY}")
    return front
