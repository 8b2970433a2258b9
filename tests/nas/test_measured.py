"""What is measured of finalists: spread and load with each latency, one budget of waiting for all."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.runtime import Job
from hw_profiles.runtimes.transports.board import BoardLost
from nas.evaluation import through
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.micro import TOO_LARGE
from nas.evaluation.on_device import GROUP, WAITING_SHARE, DeviceEvaluator, turns
from nas.problem.targets import Targets
from nas.run.config import RunConfig
from nas.search.front import Evaluation
from nas.search.objectives import objective
from nas.stages.search_context import SearchContext, measured_values
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


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        ({"accuracy": 0.0}, {"metrics": {}, "error": "no such operation"}),
        ({"accuracy": 0.9}, {"metrics": {"arena": TOO_LARGE, "flash": TOO_LARGE}}),  # of an earlier version
    ],
)
def test_what_a_device_does_not_run_has_an_error_and_no_values(
    family: Family, values: dict[str, float], attributes: dict[str, Any]
) -> None:
    candidate = family.extremes()["smallest/fp32"]
    task = SimpleNamespace(metrics=(), validation=())
    run = SimpleNamespace(task=task, config=RunConfig(), timeless=True)
    evaluator = DeviceEvaluator(NetworkBuilder(run))  # type: ignore[arg-type]
    known = ({**values, "size": 1e5}, attributes)
    evaluator.__dict__["measuring"] = SimpleNamespace(results=lambda candidates, on_found: [known])
    [measured] = evaluator.measure([candidate])
    assert measured.values == {}
    assert measured.error == attributes.get("error", "TensorFlow Lite Micro does not run it")


@pytest.mark.parametrize("failing", [(1,), (0, 1)])
def test_what_a_device_does_not_run_meets_no_limit(family: Family, failing: tuple[int, ...]) -> None:
    first, second, *_ = family.extremes().values()
    targets = Targets((objective("accuracy"), objective("arena")), ())
    costs = SimpleNamespace(predict=lambda genomes: {"size": np.full(len(genomes), 1e5)})
    builder = SimpleNamespace(metric="accuracy")
    context = SearchContext(
        None,  # type: ignore[arg-type]
        SimpleNamespace(builder=builder),  # type: ignore[arg-type]
        costs,  # type: ignore[arg-type]
        targets,
        np.zeros(2),
        (np.empty((0, 1), np.int16), np.empty(0)),
    )
    ran = {"accuracy": 0.9, "arena": 4e4}
    measured = {
        candidate: Evaluation(candidate, {}, "measured", error="no such operation")
        if place in failing
        else Evaluation(candidate, ran, "measured")
        for place, candidate in enumerate((first, second))
    }
    values = measured_values(context, measured)
    missed = targets.violation({"arena": np.zeros(2), **values})
    assert [bool(excess) for excess in missed] == [place in failing for place in range(2)]


@pytest.mark.parametrize("error", [BoardLost("gone"), TrilobitError("no such operation")])
def test_a_lost_board_has_not_rejected_the_reference(
    monkeypatch: pytest.MonkeyPatch, error: TrilobitError
) -> None:
    def ask(*_: Any) -> None:
        raise error

    outputs = np.zeros((1, 10))
    monkeypatch.setattr(through, "device_outputs", ask)
    monkeypatch.setattr(through, "file_outputs", lambda *_: outputs)
    run: Any = SimpleNamespace(task=None)
    network: Any = None
    if isinstance(error, BoardLost):
        with pytest.raises(BoardLost, match="gone"):
            through.original_outputs(run, network, b"", None)
    else:
        answered = through.original_outputs(run, network, b"", None)
        assert answered.outputs is outputs
        assert answered.through.endswith("on this machine, since no such operation")
