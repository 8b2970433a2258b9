"""What a run asks of a device, and the device that a runtime and a transport make."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.in_context import Probe
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Artifact, Job, Runtime


class Device(Protocol):
    """What costs are asked of: something that is measured, or figures that are looked up or computed. A layer
    is a workload of length one.
    """

    @property
    def runtime(self) -> Runtime | None:
        """What runs networks on it; None where nothing is executed."""
        ...

    def describe(self) -> DeviceInfo:
        """Return what it is; equal on every call."""
        ...

    def supports(self, layer: Layer) -> bool:
        """Return whether it can run this layer in the formats that it asks for."""
        ...

    def why_not(self, layer: Layer) -> str:
        """Return why it cannot, in one line; asked only where `supports` says so."""
        ...

    def probe(self, layer: Layer) -> Probe:
        """Return how to find out what one layer costs inside a network: in context
        (`hw_profiles.measure.in_context.in_context`) where neighbours change it, else
        `hw_profiles.measure.in_context.alone`.
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


class Transport(Protocol):
    """Where executables run: it carries artifacts there and brings samples back."""

    @property
    def parallel(self) -> int:
        """How many calls of `sample` may run at the same time."""
        ...

    def located(self, info: DeviceInfo) -> DeviceInfo:
        """Return what a runtime says of itself with what only the place where it runs can say."""
        ...

    def sample(
        self,
        runtime: Runtime,
        artifacts: Sequence[Artifact],
        contexts: Sequence[Hashable | None],
        plan: MeasurePlan,
    ) -> list[Measurement]:
        """Time the artifacts in passes beside a reference workload that reveals interference.

        Args:
            runtime: compiles them, where they run.
            contexts: of each, see `Job`.
        """
        ...


@runtime_checkable
class TimesOnly(Protocol):
    """A transport that cannot bring back what executables give."""

    @property
    def times_only(self) -> Literal[True]:
        """It brings back how long they take."""
        ...


@dataclass(frozen=True)
class MeasuredDevice:
    """A device that is there: a runtime's executables, timed where a transport takes them.

    Attributes:
        probe: see `Device`.
    """

    runtime: Runtime
    transport: Transport
    probe: Callable[[Layer], Probe]

    def describe(self) -> DeviceInfo:
        """Return the runtime, and where it runs."""
        return self.transport.located(self.runtime.describe())

    def supports(self, layer: Layer) -> bool:
        """Return whether the runtime can run this layer."""
        return self.runtime.supports(layer)

    def why_not(self, layer: Layer) -> str:
        """Return why it cannot."""
        return self.runtime.why_not(layer)

    @property
    def timed(self) -> bool:
        """It is measured, now."""
        return True

    @property
    def parallel(self) -> int:
        """As many as the transport reaches."""
        return self.transport.parallel

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        """Build each job's artifact and time those that there are."""
        built = self.runtime.build(jobs)
        pairs = zip(built, (job.context for job in jobs), strict=True)
        ready = [(artifact, context) for artifact, context in pairs if isinstance(artifact, Artifact)]
        artifacts, contexts = [artifact for artifact, _ in ready], [context for _, context in ready]
        samples = iter(self.transport.sample(self.runtime, artifacts, contexts, plan) if ready else ())
        return [Measurement(error=result) if isinstance(result, str) else next(samples) for result in built]
