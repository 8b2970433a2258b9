"""A microcontroller that is not there: it answers as it would, and times are somebody else's, or none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.analytical.untimed import NeverTimed
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.microcontroller.runtime import NO_TIMES, MicroRuntime
from hw_profiles.runtimes.runtime import Artifact, Job


@dataclass(frozen=True)
class MicroDevice(NeverTimed):
    """A microcontroller.

    Attributes:
        runtime: runs networks as it would.
        times: what layers take on it; None where nothing says so.
    """

    runtime: MicroRuntime
    times: Device | None = None

    def describe(self) -> DeviceInfo:
        """Return the engine, and whose times these are."""
        info = self.runtime.describe()
        if self.times is None:
            return info
        timing = self.times.describe()
        name = f"{info.name}-{timing.name}"
        return replace(info, name=name, cpu=timing.cpu, energy=timing.energy, figures=timing.figures)

    def supports(self, layer: Layer) -> bool:
        """Return whether it runs this layer, in a time that is known where any is."""
        return self.runtime.supports(layer) and (self.times is None or self.times.supports(layer))

    def why_not(self, layer: Layer) -> str:
        """Return why it does not."""
        if self.times is None or not self.runtime.supports(layer):
            return self.runtime.why_not(layer)
        return self.times.why_not(layer)

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        """Look up what networks take; without times return why there is none, or why it does not run."""
        if self.times is not None:
            return self.times.measure(jobs, plan)
        built = self.runtime.build(jobs)
        return [Measurement(error=NO_TIMES if isinstance(b, Artifact) else b) for b in built]
