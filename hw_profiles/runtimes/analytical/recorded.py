"""Replays a saved profile: tests without hardware, and search on a device that is somewhere else."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.runtimes.analytical.untimed import UntimedDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Job


class RecordedDevice(UntimedDevice):
    """Answers from a profile: a network's time is the calibrated sum of its rows, one sample each.

    Raises:
        TrilobitError: the profile is missing or not usable.
    """

    def __init__(self, *, profile: Path) -> None:
        self.profile = load_profile(Path(profile))

    @classmethod
    def of(cls, profile: DeviceProfile) -> Self:
        """Return the device of a profile that is in no file."""
        device = cls.__new__(cls)
        device.profile = profile
        return device

    def replaying(self, profile: DeviceProfile) -> "RecordedDevice":
        """Return the same device with another profile of it, such as one with more rows."""
        other = copy.copy(self)
        other.profile = profile
        return other

    def describe(self) -> DeviceInfo:
        return self.profile.device

    def supports(self, layer: Layer) -> bool:
        return math.isfinite(self.profile.cost_s(layer)) if layer in self.profile else False

    def why_not(self, layer: Layer) -> str:
        row = self.profile.table.get(layer)
        return (row.error if row else None) or f"not recorded in {self.profile.device.name}: {layer.key()}"

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        return [self._replay(job) for job in jobs]

    def _replay(self, job: Job) -> Measurement:
        missing = [layer.key() for layer in job.workload.layers if not self.supports(layer)]
        if missing:
            return Measurement(error=f"not recorded: {missing[0]}")
        seconds = self.profile.predict_s(job.workload)
        if seconds <= 0:
            return Measurement(error=f"its rows add up to {seconds:.3g} s: too few of them are measured")
        return Measurement((seconds,))
