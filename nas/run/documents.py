"""The documents of a run folder as nouns: what each file holds is said here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from hw_profiles.documents import D, read_document
from hw_profiles.errors import TrilobitError
from nas.search.objectives import objective
from predictors.assessment.learning_curve import CurvePoint
from predictors.assessment.quality import Quality
from supernet.space.space import Genomes, SearchSpace

MOST_OPTIONS = 2**15  # of one choice: genes are int16


def _gene(value: int) -> None:
    if not 0 <= value < MOST_OPTIONS:
        raise ValueError(f"a gene is from 0 to {MOST_OPTIONS - 1}, got {value}")


def not_negative(value: float) -> None:
    """Refuse a number below 0, as a check of `hw_profiles.documents`."""
    if value < 0:
        raise ValueError(f"expected at least 0, got {value:g}")


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
    seconds: Annotated[float, not_negative]


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

    stages: Mapping[str, Annotated[float, not_negative]]


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
        commit: of the sources, `-dirty` where they were changed; None outside a checkout.
        command: the command line.
        init: which weights the training began with.
        host: operating system and processor family.
    """

    SCHEMA: ClassVar[str] = "env/1"
    REMEDY: ClassVar[str] = "delete it; every command writes it again"

    versions: Mapping[str, str]
    seed: int
    date: str = ""
    integer_sums: Literal["exact", "saturating", "unknown"] | None = None
    formats: tuple[str, ...] = ()
    commit: str | None = None
    command: str | None = None
    init: str | None = None
    host: Mapping[str, Any] = field(default_factory=dict)


# -- samples and predictors ---------------------------------------------------------------------------


@dataclass(frozen=True)
class StoppingDecision:
    """Why no more networks of one sampling group were evaluated.

    Attributes:
        name, n, most: the group, how many were evaluated and how many could have been.
        why: in words.
        gain: of Kendall's tau that the next batch promised; None where no curve was drawn.
        curve: held-out error of the sampler's own model after learning from some, and from all; on rank-based
            scores.
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
    kinds: tuple[StoppingDecision, ...]
    genes: tuple[Genes, ...]


@dataclass(frozen=True)
class SensitivityFile:
    """`damage.json`: the sensitivity of every option of a choice of formats, by the choice's name."""

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
