"""The manifest of somebody's network whose number formats were tuned: what it says, read into nouns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hw_profiles.runtimes.info import DeviceInfo
from nas.checks.examples import ExampleAnswers
from nas.checks.tensor import Tensor
from nas.export.library.tuned import TunedLibrary
from nas.export.manifest import Latency, Prediction
from nas.export.seal import Count, Digest, Files, Natural, NotNegative

TUNED_SCHEMA = "tuned-export/1"


@dataclass(frozen=True)
class Origin:
    """The file that a network was made from.

    Attributes:
        name: of the file, without its folder.
        sha256: of the file as it was given.
        bytes: its size.
    """

    name: str
    sha256: Digest
    bytes: Natural


@dataclass(frozen=True)
class MetricFigure:
    """One metric of the answers.

    Attributes:
        value: in the metric's unit.
        standard_error: over the examples; None where it is not known.
        unit: `fraction`, or any other word.
        direction: `max` where more is better.
        meaning: what it is, in half a line.
        original: of the original's answers to the same examples; None where it is compared with itself.
    """

    value: float
    standard_error: NotNegative | None
    unit: str
    direction: Literal["max", "min"]
    meaning: str = ""
    original: float | None = None


@dataclass(frozen=True)
class Quality:
    """What the answers are like on examples that nothing had seen before.

    Attributes:
        n: how many examples.
        metrics: by name, the main one first.
    """

    n: Count
    metrics: Mapping[str, MetricFigure]

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError("metrics: needs one at least")


@dataclass(frozen=True)
class Data:
    """What a network was calibrated, chosen and judged on.

    Attributes:
        source: as it was named, without the folder that it is in.
        described: what the examples are, in a line.
        calibration, choosing, judging: examples of each, none in two of them.
        labelled: whether right answers were known.
        preprocessing: what was done to images, as far as that is known; empty for arrays.
        metric: a function of the user's own that judged answers, `module:function`; empty without.
    """

    source: str
    calibration: Natural
    choosing: Natural
    judging: Natural
    described: str = ""
    labelled: bool = False
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    metric: str = ""


@dataclass(frozen=True)
class TunedKernels:
    """What runs the file, as its runtime's optimised graph says.

    Attributes:
        integer: kernels that compute on integers.
        otherwise: a line for each unit that is computed otherwise than its format says.
    """

    integer: Natural
    otherwise: tuple[str, ...] = ()


@dataclass(frozen=True)
class TunedManifest:
    """What a tuned network is, and what was measured of it.

    Attributes:
        schema: version of this document.
        id: hash of genes and space.
        genes: one number per unit that has a choice; 0 is fp32.
        space_fingerprint: of the formats that units can have; with the genes it decides the id.
        policy: number format by unit; what is not named is as it was.
        units: how many the network has.
        files: hash and size of every other file, by name.
        opset: of ONNX's own operators in the file.
        domains: of other operators that it needs.
        inputs, outputs: what it reads and gives; sizes that are names are open.
        bound: what open sizes were when it was measured, by name.
        fixed: value of inputs that are not read any more: it computes as if they always had it.
        origin: what it was made from.
        data: what it was tuned with.
        seed: of the run.
        device: what latency was measured on.
        instruction_set: of that processor.
        quality: of its answers.
        latency: through the file; references are the original and what recipes make of it. None where
            nothing was timed.
        kernels: that run it.
        answers: to made-up inputs, by which the file is checked elsewhere; None where it takes no such.
        versions: of the packages that made it.
        predicted: what the search expected, by objective.
        library: the same formats in machine code, which latency and quality are of; None without.
        requires: of the processor, such as `{"integer_sums": "exact"}`; empty where any will do.
        memory: bytes that it needs on a microcontroller, `arena` and `flash`; empty where nobody asked.
        digest: of the manifest itself.
    """

    schema: Literal["tuned-export/1"]
    id: str
    genes: tuple[Natural, ...]
    space_fingerprint: str
    policy: Mapping[str, str]
    units: Natural
    files: Files
    opset: Count
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    origin: Origin
    data: Data
    seed: Natural
    device: DeviceInfo
    instruction_set: str
    quality: Quality
    latency: Latency | None
    kernels: TunedKernels
    versions: Mapping[str, str]
    digest: Digest
    answers: ExampleAnswers | None = None
    domains: tuple[str, ...] = ()
    bound: Mapping[str, Natural] = field(default_factory=dict)
    fixed: Mapping[str, bool | int | float] = field(default_factory=dict)
    predicted: Mapping[str, Prediction | None] = field(default_factory=dict)
    library: TunedLibrary | None = None
    requires: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, NotNegative] = field(default_factory=dict)
