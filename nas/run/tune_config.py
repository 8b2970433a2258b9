"""The configuration of a tune: a model of one's own, the data that it reads, and what is wanted of it."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast, get_args

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.options import OneOf, Option, Range, Written, check, options
from nas.run.config import ClusterSection, DeviceSection, Sectioned
from nas.run.wanted import parse_time
from nas.search.limits import parse_limit
from nas.search.objectives import GROUP, OBJECTIVES, canonical_name
from supernet.data.preprocessing import parse_preprocessing
from supernet.imported.fixed_value import Number, parse_fixed
from supernet.registry import FORMATS
from supernet.tasks.metric import Direction
from supernet.tasks.output_roles import Role

STAGES = ("import", "calibrate", "profile", "sample", "search", "export", "report")
NO_LIMIT = "none"  # as a limit: there is none
_SHAPE = re.compile(r"([^=\s]+)=([0-9]+(?:x[0-9]+)*)")
_LIMIT = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|=)\s*(\S.*?)\s*")
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


def parse_tune_limit(text: str) -> tuple[str, str]:
    """Return the name and the limit that `agreement=99%`, `flips<=0.5%` or `kl<=0.01` give. Which way is
    better is the metric's, and whether there is such a metric is known once the model was run.

    >>> parse_tune_limit("agreement >= 99%")
    ('agreement', '99%')

    Raises:
        TrilobitError: it is not written like this.
    """
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise TrilobitError(f"{shown(text)} is no limit: write NAME=X, such as agreement=99% or kl=0.01")
    name, sign, limit = canonical_name(match[1]), match[2], match[3]
    known = OBJECTIVES.get(name)
    if known is not None and sign not in ("=", known.sign):
        better = "less" if known.sign == "<=" else "more"
        raise TrilobitError(
            f"{shown(text)}: {better} {name} is better: its limit is written {name}{known.sign}{limit}"
        )
    if known is not None and limit != NO_LIMIT:
        parse_limit(limit, known)
    return name, limit


def parse_function(text: str) -> str:
    """Return the name of a function as `module:function`.

    Raises:
        TrilobitError: it is not written like this.
    """
    if _FUNCTION.fullmatch(text) is None:
        raise TrilobitError(f"{shown(text)} is no function: write module:function")
    return text


def parse_direction(text: str) -> Direction:
    """Return `max` or `min`.

    Raises:
        TrilobitError: it is neither.
    """
    if text not in get_args(Direction):
        raise TrilobitError(f"{shown(text)}: max where more is better, or min")
    return cast("Direction", text)


def parse_role(text: str) -> tuple[str, Role]:
    """Return the output and what it is that `NAME=values` gives.

    >>> parse_role("boxes=values")
    ('boxes', <Role.VALUES: 'values'>)

    Raises:
        TrilobitError: it is not written like this.
    """
    name, _, role = text.rpartition("=")
    roles = {role.name.lower(): role for role in Role}
    if not name or role not in roles:
        raise TrilobitError(f"{shown(text)}: write OUTPUT=ROLE, a role being one of {', '.join(roles)}")
    return name, roles[role]


@dataclass(frozen=True)
class ModelSection:
    """Which network.

    Attributes:
        source: its ONNX file.
        shape: sizes of inputs with open dimensions, `INPUT=1x3x224x224`; what is not said is taken from the
            data.
        fix: value of inputs that always have the same, `INPUT=NUMBER`: what they decide is decided in the
            files. Empty takes those that decide an `If` and have one value in all examples; `none` takes
            none.
    """

    source: str = ""
    shape: Annotated[tuple[str, ...], Written(parse_shape, "such as image=1x3x224x224")] = ()
    fix: Annotated[tuple[str, ...], Written(parse_fixed, "such as sr=16000")] = ()

    def __post_init__(self) -> None:
        check(self, "model")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Sizes by input."""
        return dict(map(parse_shape, self.shape))

    @property
    def fixed(self) -> dict[str, Number]:
        """Value by input, of those that are said to have only one."""
        return {name: value for name, value in map(parse_fixed, self.fix) if name}


@dataclass(frozen=True)
class SamplesSection:
    """What the network reads.

    Attributes:
        source: a folder or an archive of images, `.npy` or `.npz` with an array for each input, or
            `module:function`.
        mean, std, scale, layout, resize, channels, size: of images, where the file does not say it, see
            `supernet.data.preprocessing`.
        labels: a file with the names of the classes, one a line; `none` leaves labels out.
        count: how many examples to use, evenly chosen ones; 0 takes all that fit.
    """

    source: str = ""
    mean: str = ""
    std: str = ""
    scale: str = ""
    layout: str = ""
    resize: str = ""
    channels: str = ""
    size: str = ""
    labels: str = ""
    count: Annotated[int, Range(0, 100_000_000)] = 0

    def __post_init__(self) -> None:
        check(self, "samples")
        parse_preprocessing(self.preprocessing)

    @property
    def preprocessing(self) -> dict[str, str]:
        """What is said of images, by name."""
        names = ("mean", "std", "scale", "layout", "resize", "channels", "size")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True)
class TuneSection:
    """How to tune.

    Attributes:
        formats: number formats that units may take beside fp32; empty takes all that the device runs.
        metric: a function of one's own that says how good answers are, `module:function`; empty for none.
        metric_direction: whether more (`max`) or less (`min`) of it is better; empty takes what the function
            says of itself, else more.
        outputs: what outputs of the network are, `OUTPUT=ROLE`, where they are not recognised.
        budget: time for the whole tune, such as `5m`; empty takes what the targets for quality of the search
            need.
        objectives: costs that quality is traded off against, of `latency`, `size`, `arena` and `flash`; empty
            takes latency and size, and arena and flash where a device has no times. The main metric of the
            answers, which always is one, may be named too.
        evaluations: policies whose quality is evaluated before the search, those of one changed unit
            included. None: as many as help, at most 84.
        rounds: search on predictions, measure finalists, learn from them: so many times.
        finalists: policies measured per round.
        count: files to write: the fastest, the best and those between.
        choosing, judging: examples that policies are compared on, and that the front is judged by, at most.
            None: as many as can be run often.
    """

    formats: Annotated[tuple[str, ...], OneOf(FORMATS, "trilobit.formats")] = ()
    metric: Annotated[str, Written(parse_function, "a function, such as mine:score")] = ""
    metric_direction: Annotated[str, Written(parse_direction, "max or min")] = ""
    outputs: Annotated[tuple[str, ...], Written(parse_role, "such as boxes=values")] = ()
    budget: Annotated[str, Written(parse_time, "a time such as 5m")] = ""
    objectives: Annotated[tuple[str, ...], OneOf(OBJECTIVES, GROUP)] = ()
    evaluations: Annotated[int | None, Range(8, 1_000_000)] = None
    rounds: Annotated[int, Range(1, 1_000)] = 3
    finalists: Annotated[int, Range(1, 10_000)] = 12
    count: Annotated[int, Range(1, 10_000)] = 8
    choosing: Annotated[int | None, Range(4, 1_000_000)] = None
    judging: Annotated[int | None, Range(4, 100_000_000)] = None

    def __post_init__(self) -> None:
        check(self, "tune")

    @property
    def direction(self) -> Direction | None:
        """Which way of one's own metric is better, where that is said."""
        return parse_direction(self.metric_direction) if self.metric_direction else None

    @property
    def roles(self) -> dict[str, Role]:
        """What outputs are, by name, where that is said."""
        return dict(map(parse_role, self.outputs))

    @property
    def budget_s(self) -> float:
        """Seconds; infinite where nothing was said."""
        return parse_time(self.budget) if self.budget else math.inf


@dataclass(frozen=True)
class TuneConfig(Sectioned):
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
    cluster: ClusterSection = field(default_factory=ClusterSection)
    constraints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, "")


def is_tune_folder(folder: Path) -> bool:
    """Return whether a run folder is one of `nas tune`: its `run.toml` names a model."""
    record = folder / "run.toml"
    try:
        return record.is_file() and "model" in tomllib.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def tune_options() -> dict[str, Option]:
    """Return the options that only a tune has by name, `section.key`."""
    sections = (("model", ModelSection), ("samples", SamplesSection), ("tune", TuneSection))
    return {option.name: option for name, section in sections for option in options(section, name)}
