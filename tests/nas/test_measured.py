"""What is measured of finalists: spread and load with each latency, one budget of waiting for all."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.runtime import Job
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import GROUP, WAITING_SHARE, DeviceEvaluator, turns
from nas.run.config import RunConfig
from supernet.families.family import Family


class Restless:
    """Takes all the waiting that it is given."""

    def __init__(self) -> None:
        self.given_s = list[float]()

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        self.given_s.append(plan.waiting_s)
        return [Measurement((1e-4,), waited_s=plan.waiting_s, load=12.3) for _ in jobs]


@pytest.fixture
def work(family: Family) -> Workload:
    return family.workload(family.extremes()["smallest/fp32"])


def test_one_group_of_finalists_cannot_use_up_the_waiting_of_all(work: Workload) -> None:
    device = Restless()
    run = SimpleNamespace(device=device, plan=MeasurePlan(waiting_s=40.0))
    evaluator = DeviceEvaluator(NetworkBuilder(run))  # type: ignore[arg-type]
    for _ in range(12):
        evaluator.latencies([Job(work, bytes)])
    assert device.given_s[0] == WAITING_SHARE * 40.0
    assert sum(device.given_s) < 40.0
    assert all(np.diff(device.given_s) < 0)


@given(n=st.integers(0, 60), workers=st.integers(1, 20))
def test_groups_keep_all_workers_busy(n: int, workers: int) -> None:
    groups = turns([object()] * n, workers)  # type: ignore[list-item]
    sizes = list(map(len, groups))
    assert sum(sizes) == n
    assert not n or (max(sizes) <= GROUP and max(sizes) - min(sizes) <= 1)
    assert len(groups) == n or len(groups) % workers == 0  # none waits while others measure more than it did


@pytest.mark.parametrize(("attributes", "load"), [({"load": 12.3}, 12.3), ({"load": None}, None), ({}, None)])
def test_the_load_comes_with_a_finalist_where_it_is_known(
    family: Family, attributes: dict[str, float | None], load: float | None
) -> None:
    candidate = family.extremes()["smallest/fp32"]
    task = SimpleNamespace(metrics=(), validation=())
    run = SimpleNamespace(task=task, config=RunConfig(), timeless=False)
    evaluator = DeviceEvaluator(NetworkBuilder(run))  # type: ignore[arg-type]
    known = ({"latency": 1e-4}, {"iqr_s": 1e-6, **attributes})
    evaluator.__dict__["measuring"] = SimpleNamespace(results=lambda candidates, on_found: [known])
    [measured] = evaluator.measure([candidate])
    assert (measured.values["latency"], measured.spread["latency"], measured.load) == (1e-4, 1e-6, load)
