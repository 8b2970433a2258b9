"""A device on which times add up exactly, from secret costs: what profiling it must find out again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import Probe, in_context
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Job

SESSION_S = 1e-3


@dataclass
class AdditiveBackend:
    """A network takes the session's own time plus a secret cost of each of its layers.

    Attributes:
        secret_s: the cost of a layer.
        measured: every workload that was ever measured, in order.
        boards: how many calls of `measure` it takes at a time.
        disturb: from the number of jobs measured so far to the share of quiet windows.
    """

    secret_s: Callable[[Layer], float]
    rejected: tuple[Layer, ...] = ()
    disturb: Callable[[int], float] = lambda measured: 1.0
    measured: list[Workload] = field(default_factory=list)
    boards: int = 1

    @property
    def runtime(self) -> None:
        return None

    def describe(self) -> DeviceInfo:
        return DeviceInfo("additive", "no CPU", "arithmetic", "1", "none")

    def supports(self, layer: Layer) -> bool:
        return layer not in self.rejected

    def why_not(self, layer: Layer) -> str:
        return "it is on the list"

    def probe(self, layer: Layer) -> Probe:
        return in_context(layer)

    @property
    def timed(self) -> bool:
        return True

    @property
    def parallel(self) -> int:
        return self.boards

    def network_s(self, work: Workload) -> float:
        return SESSION_S + sum(map(self.secret_s, work.layers))

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        return [self._measure(job.workload, plan) for job in jobs]

    def _measure(self, work: Workload, plan: MeasurePlan) -> Measurement:
        self.measured.append(work)
        samples = (self.network_s(work),) * plan.rounds
        return Measurement(samples, quiet_share=self.disturb(len(self.measured)))


def secret_s(layer: Layer) -> float:
    """Some microseconds, unrelated for any two layers."""
    return float(np.random.default_rng(list(layer.key().encode())).uniform(1e-6, 1e-4))


@pytest.fixture
def backend() -> AdditiveBackend:
    return AdditiveBackend(secret_s)


@pytest.fixture
def no_onnx() -> Callable[[Workload], bytes]:
    """For backends that need no ONNX."""

    def emit(work: Workload) -> bytes:
        raise AssertionError("an analytical backend never asks for ONNX")

    return emit
