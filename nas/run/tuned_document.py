"""`front.json` of a tuned model as a noun: files that were measured, and which of them nothing beats."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar

from nas.run.documents import Genes, not_negative
from nas.run.front_document import Identity, Predicted, Round
from supernet.tasks.metric import smooth_metric

ALL_INT8 = "int8"  # name of the reference with every unit in int8 that can be, by us


@dataclass(frozen=True)
class MetricValue:
    """One metric on some examples.

    Attributes:
        value: in the metric's unit.
        std: standard error over the examples; None where it is not known.
    """

    value: float
    std: Annotated[float, not_negative] | None = None


@dataclass(frozen=True)
class PartQuality:
    """What a file's answers were like on one part of the examples.

    Attributes:
        samples: how many examples.
        metrics: by name.
    """

    samples: int
    metrics: Mapping[str, MetricValue]


@dataclass(frozen=True)
class MeasuredLatency:
    """What a file took, timed in turns with the original and with all others of the same front.

    Attributes:
        median_s: seconds of one inference.
        iqr_s: interquartile range.
        ratio: median of this file's time over the original's in the same pass; below 1 is faster.
        ratio_iqr: interquartile range of that.
        samples_s: seconds of each pass.
        quiet_share: share of the passes in which nothing else used the core.
        load: of the machine; None where it cannot tell.
    """

    median_s: Annotated[float, not_negative]
    iqr_s: Annotated[float, not_negative]
    ratio: Annotated[float, not_negative]
    ratio_iqr: Annotated[float, not_negative]
    samples_s: tuple[float, ...] = ()
    quiet_share: float = 1.0
    load: float | None = None


@dataclass(frozen=True)
class UnitShare:
    """What one unit's format does in one policy.

    Attributes:
        format: that it has.
        saved_s: modelled: seconds that the whole network would take more if this unit alone went back to
            fp32, conversions at its borders included; negative where it would then be faster. None where
            time is not the first thing that is traded off.
        cost: predicted: by how much less the answers would then differ from the original's: `kl` in nats;
            where there is none, noise over signal (of `snr`); else what is missing of the main metric.
        saved_bytes: the same of what is traded off first in place of time, such as `arena`.
    """

    format: str
    saved_s: float | None
    cost: float
    saved_bytes: float | None = None

    @property
    def saved(self) -> float:
        """Of the first cost, in its unit."""
        return self.saved_s if self.saved_s is not None else self.saved_bytes or 0.0


@dataclass(frozen=True)
class TunedNetwork:
    """One file.

    Attributes:
        id: hash of genes and space.
        genes: one number per choice of the space.
        policy: number format by unit; what is not named is fp32.
        size_bytes: of the file.
        predicted: by objective in SI units, before it was measured.
        latency: measured in the last turns, with the references; None where it was not in them.
        choosing: measured on what policies were compared on.
        judging: measured on what nothing saw before; None where it is not on the front.
        units: by unit that is not fp32.
        left: by unit that is fp32 and could be something else, what the format would do that saves most: time
            that it would save, negative where it would cost some, and by how much more the answers would
            differ.
        seconds: of an inference, measured while the search learned, at the machine's usual speed; not to be
            compared with `latency`.
        memory: counted: bytes that it needs on a microcontroller, `arena` and `flash`; empty where nobody
            asked, or it does not run there.
    """

    id: Identity
    genes: Genes
    policy: Mapping[str, str]
    size_bytes: float
    predicted: Mapping[str, Predicted]
    choosing: PartQuality
    latency: MeasuredLatency | None = None
    judging: PartQuality | None = None
    units: Mapping[str, UnitShare] = field(default_factory=dict)
    left: Mapping[str, UnitShare] = field(default_factory=dict)
    seconds: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """A file that the front is compared with, made by a recipe.

    Attributes:
        name: of the recipe.
        title: for people.
        size_bytes: of the file.
        latency, choosing, judging: measured as those of the front; None where there is no such file.
        error: why there is none.
        memory: as of a network.
    """

    name: str
    title: str
    size_bytes: float | None = None
    latency: MeasuredLatency | None = None
    choosing: PartQuality | None = None
    judging: PartQuality | None = None
    error: str = ""
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedUnit:
    """One unit of the model.

    Attributes:
        name: of its first node.
        op: ONNX's name of that node's operation.
        options: number formats that the search chose from; fp32 alone where it had no choice.
        refused: why it cannot have others, by format.
        alone: measured: `kl`, else `snr`, else the main metric, where this unit alone has a format, by
            format.
    """

    name: str
    op: str
    options: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    alone: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedModel:
    """Which model was tuned.

    Attributes:
        source: where its file was.
        digest: SHA-256 of the file as it is tuned.
        size_bytes: of that.
        bound: sizes of open dimensions that it was measured with.
        fixed: value of inputs that files do not read any more, since they always have the same.
    """

    source: str
    digest: str
    size_bytes: float
    bound: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, bool | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedMetric:
    """A metric of the answers.

    Attributes:
        name: for example `agreement`.
        unit: of every value of it: `fraction`, or any other word.
        direction: `max` where more is better.
        meaning: what it is, in half a line.
    """

    name: str
    unit: str
    direction: str
    meaning: str = ""


@dataclass(frozen=True)
class TunedObjective:
    """What is traded off or limited: a metric of the answers, or a cost such as `latency` or `size`.

    Attributes:
        name: of it.
        unit, direction: of its values; `max` where more is better.
        bound: limit in its unit; None without.
        sought: whether it is traded off, not limited only.
    """

    name: str
    unit: str
    direction: str
    bound: float | None = None
    sought: bool = True


LATENCY = "latency"
TIME_AND_SIZE = (TunedObjective(LATENCY, "s", "min"), TunedObjective("size", "bytes", "min"))


@dataclass(frozen=True)
class TunedFront:
    """`front.json` of `nas tune`.

    Attributes:
        model: which one.
        device, instruction_set: what latency was measured on.
        fingerprint: of the space of policies.
        metrics: of the answers, the main one first: it is what was searched for.
        objectives: what is traded off and limited, with bounds.
        units: of the model, in order.
        original: the model in fp32, as it is tuned.
        references: what the front is compared with, measured in the same turns.
        candidates: the front, the fastest first.
        evaluated: all other policies whose latency was measured.
        rounds: of the search.
        evaluations: policies whose quality was evaluated.
        quality_tau: rank correlation of predicted and measured quality of random policies that the predictor
            had not seen; None where there were too few.
    """

    SCHEMA: ClassVar[str] = "tuned/1"
    REMEDY: ClassVar[str] = "run `nas tune` again: what is measured stays in the folder"

    model: TunedModel
    device: str
    instruction_set: str
    fingerprint: str
    metrics: tuple[TunedMetric, ...]
    objectives: tuple[TunedObjective, ...]
    units: tuple[TunedUnit, ...]
    original: Reference
    references: tuple[Reference, ...]
    candidates: tuple[TunedNetwork, ...]
    evaluated: tuple[TunedNetwork, ...]
    rounds: tuple[Round, ...]
    evaluations: int
    quality_tau: float | None = None

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("candidates: expected at least one file")
        if not self.metrics:
            raise ValueError("metrics: expected at least one")

    @property
    def metric(self) -> TunedMetric:
        """What was searched for."""
        return self.metrics[0]

    @property
    def costs(self) -> tuple[TunedObjective, ...]:
        """What that was traded off against, the cost that files are in the order of first."""
        metrics = {metric.name for metric in self.metrics}
        sought = tuple(o for o in self.objectives if o.sought and o.name not in metrics)
        return sought or TIME_AND_SIZE

    @property
    def predicted_metric(self) -> TunedMetric:
        """What is predicted of files and said of single units."""
        return smooth_metric(self.metrics)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; samples of what is not on the front are left out."""
        plain = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        for row in plain["evaluated"]:
            if row["latency"] is not None:
                row["latency"]["samples_s"] = ()
        return plain


def cost_of(entry: TunedNetwork | Reference, name: str) -> float | None:
    """Return a cost of a file, in SI units; None where it is not known."""
    if name == LATENCY:
        return entry.latency.median_s if entry.latency else None
    return entry.size_bytes if name == "size" else entry.memory.get(name)


def shown_costs(front: TunedFront) -> tuple[TunedObjective, ...]:
    """Return the costs that tables show: what was traded off, what has a limit, and the size of files."""
    metrics = {metric.name for metric in front.metrics}
    listed = (*front.costs, *(o for o in front.objectives if o.name not in metrics), TIME_AND_SIZE[1])
    return tuple({o.name: o for o in listed}.values())


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, TunedNetwork):
        predicted = {name: figure.to_json() for name, figure in value.predicted.items()}
        return {**asdict(value), "predicted": predicted}
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
