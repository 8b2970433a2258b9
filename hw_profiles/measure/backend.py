"""What a backend must offer: one engine on one device."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from hw_profiles.graph.layer import LayerSpec
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import Probe
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.reference.integer_sums import IntegerSums

Figures = Literal["measured", "modelled", "published"]


@dataclass(frozen=True)
class DeviceInfo:
    """What was measured on.

    Attributes:
        name: file-name-safe, for example `ort-cpu-1t`; profiles are stored under it.
        cpu: processor model.
        engine, engine_version: for example onnxruntime 1.31.1; `analytical`, or `published table`.
        provider: execution provider or compiler target.
        threads: threads used by one inference.
        batch: images per inference; every time and energy is of a whole batch.
        energy: where joules come from, or why there are none.
        integer_sums: what its kernels for unsigned activations and signed weights do with sums that leave 16
            bits, found by running some; `unknown` in profiles from before that.
        figures: what its times and energies are: measured by somebody who had it, modelled, or published.
    """

    name: str
    cpu: str
    engine: str
    engine_version: str
    provider: str
    threads: int = 1
    batch: int = 1
    energy: str = "not measured"
    integer_sums: Literal["exact", "saturating", "unknown"] = "unknown"
    figures: Figures = "measured"

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or set(self.name) & set("/\\"):
            raise ValueError(f"a device's name is a file name, got {self.name!r}")

    @property
    def sums(self) -> IntegerSums:
        """What 8-bit weights are made for."""
        return IntegerSums(self.integer_sums)

    def to_json(self) -> dict[str, Any]:
        """As stored in a profile."""
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """One workload to measure, and how to get it as ONNX if the engine wants that; an analytical backend
    never calls it.

    Attributes:
        context: jobs of one context are subtracted from each other: their samples are of the same passes.
            None stands by itself.
    """

    workload: Workload
    onnx: Callable[[], bytes]
    context: Hashable | None = None


class Backend(Protocol):
    """One engine on one device. A layer is a workload of length one."""

    def describe(self) -> DeviceInfo:
        """The device; equal on every call."""
        ...

    def supports(self, layer: LayerSpec) -> bool:
        """Whether the engine can run this unit in the formats it asks for."""
        ...

    def why_not(self, layer: LayerSpec) -> str:
        """Why it cannot, in one line; asked only where `supports` says so."""
        ...

    def probe(self, layer: LayerSpec) -> Probe:
        """How to find out what one unit costs inside a network: in context
        (`hw_profiles.measure.in_context.in_context`)
        where neighbours change it, else `hw_profiles.measure.in_context.alone`.
        """
        ...

    @property
    def timed(self) -> bool:
        """Whether `measure` times the device, now; not where times are looked up or modelled: there nothing
        is disturbed, calibrated or repeated.
        """
        ...

    @property
    def parallel(self) -> int:
        """How many calls of `measure` may run at the same time: the boards of a farm; 1 for one machine."""
        ...

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        """Measure the jobs in passes, so that the samples of jobs of one context are paired.

        A job that fails gives a `Measurement` with its error; the others go on.
        """
        ...
