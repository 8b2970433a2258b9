"""A published table as a device that answers for the units it covers, and refuses the others."""

from collections.abc import Sequence
from pathlib import Path

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.published_tables import read_table
from hw_profiles.runtimes.analytical.untimed import UntimedDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Job


class TableDevice(UntimedDevice):
    """Answers from a published table: a network's time is the sum of its units, one sample each.

    Unlike an imported profile it also answers for units between two measured map sizes.

    Args:
        path: the published file.
        resolution: take the figures of this input resolution only, where the table has several.

    Raises:
        TrilobitError: the file is missing, of no known form, or holds something that is no figure.
    """

    def __init__(self, *, path: Path, resolution: int | None = None) -> None:
        self.table = read_table(Path(path), resolution=resolution)

    def describe(self) -> DeviceInfo:
        return self.table.device()

    def supports(self, layer: Layer) -> bool:
        return self.table.find(layer).how != "missing"

    def why_not(self, layer: Layer) -> str:
        return f"{self.table.name} does not cover it: {self.table.find(layer).reason}"

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        return [self._look_up(job.workload.layers) for job in jobs]

    def _look_up(self, layers: Sequence[Layer]) -> Measurement:
        answers = [self.table.find(layer) for layer in layers]
        for layer, answer in zip(layers, answers, strict=True):
            if answer.how == "missing":
                return Measurement(error=f"{self.table.name} does not cover {layer.key()!r}: {answer.reason}")
        joules = [answer.energy_j for answer in answers if answer.energy_j is not None]
        latency_s = sum(answer.latency_s for answer in answers)
        return Measurement((latency_s,), energy_j=sum(joules) if len(joules) == len(answers) else None)
