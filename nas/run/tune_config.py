"""The configuration of a tune: a model of one's own, the data that it reads, and what is wanted of it."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.options import OneOf, Range, Written, check
from nas.run.config import DeviceSection
from nas.run.wanted import parse_time
from supernet.registry import FORMATS

STAGES = ("import", "calibrate", "profile", "sample", "search", "export", "report")
LATENCY, SIZE = "latency", "size"
_SHAPE = re.compile(r"([^=\s]+)=([0-9]+(?:x[0-9]+)*)")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
LARGEST_SIZE = 2**31  # of a dimension


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the input and the sizes that `NAME=1x3x224x224` gives.

    >>> parse_shape("image=1x3x224x224")
    ('image', (1, 3, 224, 224))

    Raises:
        TrilobitError: not written like this, or a size of 0.
    """
    match = _SHAPE.fullmatch(text.strip())
    sizes = tuple(int(size) for size in match[2].split("x")) if match else ()
    if match is None or not all(0 < size < LARGEST_SIZE for size in sizes):
        raise TrilobitError(f"{shown(text)} is no shape: write INPUT=1x3x224x224")
    return match[1], sizes


def parse_function(text: str) -> str:
    """Return the name of a function as `module:function`.

    Raises:
        TrilobitError: it is not written like this.
    """
    if _FUNCTION.fullmatch(text) is None:
        raise TrilobitError(f"{shown(text)} is no function: write module:function")
    return text


@dataclass(frozen=True)
class ModelSection:
    """Which network.

    Attributes:
        source: its ONNX file.
        shape: sizes of inputs with open dimensions, `INPUT=1x3x224x224`; what is not said is taken from the
            data.
    """

    source: str = ""
    shape: Annotated[tuple[str, ...], Written(parse_shape, "such as image=1x3x224x224")] = ()

    def __post_init__(self) -> None:
        check(self, "model")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Sizes by input."""
        return dict(map(parse_shape, self.shape))


@dataclass(frozen=True)
class SamplesSection:
    """What the network reads.

    Attributes:
        source: a folder or an archive of images, `.npy` or `.npz` with an array for each input, or
            `module:function`.
        count: how many examples to use, the first ones; 0 takes all.
    """

    source: str = ""
    count: Annotated[int, Range(0, 100_000_000)] = 0

    def __post_init__(self) -> None:
        check(self, "samples")


@dataclass(frozen=True)
class TuneSection:
    """How to tune.

    Attributes:
        formats: number formats that units may take beside fp32; empty takes all that the device runs.
        metric: a function of one's own that says how good answers are, `module:function`; empty for none.
        budget: time for the whole tune, such as `5m`; empty takes what the targets for quality of the search
            need.
        evaluations: policies whose quality is evaluated before the search, those of one changed unit
            included. None: as many as help, at most 120 random ones.
        rounds: search on predictions, measure finalists, learn from them: so many times.
        finalists: policies measured per round.
        count: files to write: the fastest, the best and those between.
    """

    formats: Annotated[tuple[str, ...], OneOf(FORMATS, "trilobit.formats")] = ()
    metric: Annotated[str, Written(parse_function, "a function, such as mine:score")] = ""
    budget: Annotated[str, Written(parse_time, "a time such as 5m")] = ""
    evaluations: Annotated[int | None, Range(8, 1_000_000)] = None
    rounds: Annotated[int, Range(1, 1_000)] = 3
    finalists: Annotated[int, Range(1, 10_000)] = 12
    count: Annotated[int, Range(1, 10_000)] = 8

    def __post_init__(self) -> None:
        check(self, "tune")

    @property
    def budget_s(self) -> float:
        """Seconds; infinite where nothing was said."""
        return parse_time(self.budget) if self.budget else math.inf


@dataclass(frozen=True)
class TuneConfig:
    """Everything that a tune depends on.

    Attributes:
        seed: of everything random.
        constraints: limit by objective or metric as people write it, such as `{"latency": "60%"}`;
            percentages of costs are shares of what the file itself has in fp32.
    """

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    model: ModelSection = field(default_factory=ModelSection)
    samples: SamplesSection = field(default_factory=SamplesSection)
    device: DeviceSection = field(default_factory=DeviceSection)
    measure: MeasurePlan = field(default_factory=MeasurePlan)
    tune: TuneSection = field(default_factory=TuneSection)
    constraints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, "")

    def section(self, name: str) -> Any:
        """Return one section as plain data, for fingerprints."""
        value = getattr(self, name)
        return asdict(value) if hasattr(value, "__dataclass_fields__") else value
