"""A budget is kept on any machine, by a clock that tests turn; the schedule is always walked to its end."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family, load_family
from supernet.tasks.image_classification import ImageClassification
from supernet.train import loop
from supernet.train.budget import described, make_plan, segment_ends, simplifications
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.plan import SPARE, Costs, Plan, corrected, mean_cost, plan_steps, read_plan

COSTS: Costs = ((0.25, 0.5), (1.0, 2.0))
costs = st.lists(
    st.tuples(st.floats(0.05, 0.95), st.floats(0.01, 5.0)), min_size=0, max_size=4, unique_by=lambda c: c[0]
)


def walked(plan: Plan, slowness: Callable[[float], float]) -> tuple[Plan, float, list[float]]:
    """Train by the plan on a machine whose steps take `slowness(share of the time)` times the calibrated
    seconds; returns the plan at the end, the seconds, and the positions.
    """
    spent_s, step, positions = plan.began_s, 0, []
    while step < plan.total:
        if plan.is_due(step):
            plan = corrected(plan, step, spent_s)
        positions.append(plan.position(step))
        share = positions[-1] / plan.steps
        cost = next(cost for end, cost in plan.costs if share < end)
        spent_s += cost * slowness(spent_s / plan.budget_s)
        step += 1
    return plan, spent_s, positions


@given(costs, st.floats(0.01, 5.0), st.integers(200, 2_000), st.floats(0.5, 2.0), st.floats(0.5, 2.0))
def test_the_budget_is_kept_and_the_schedule_walked_to_its_end(
    drawn: list[tuple[float, float]], last: float, steps: int, first_half: float, second_half: float
) -> None:
    table: Costs = (*sorted(drawn), (1.0, last))
    budget_s = steps * mean_cost(table) / SPARE
    begun = Plan(plan_steps(table, budget_s), budget_s, table)
    plan, spent_s, positions = walked(begun, lambda share: first_half if share < 0.5 else second_half)
    dearest = max(cost for _, cost in table) * max(first_half, second_half)
    # what cannot be known: how long the last leg will really take
    assert abs(spent_s - SPARE * budget_s) <= 0.06 * budget_s + 2 * dearest
    assert positions[0] == 0
    assert (np.diff(positions) > 0).all()
    assert plan.position(plan.total) == plan.steps
    assert positions[-1] < plan.steps


def test_without_corrections_the_position_is_the_step() -> None:
    plan = Plan(100)
    assert [plan.position(step) for step in (0, 37, 100)] == [0, 37, 100]
    assert plan.total == 100
    assert not any(map(plan.is_due, range(100)))


@given(st.integers(1, 99), st.floats(1.0, 400.0), st.floats(1.0, 400.0))
def test_a_correction_joins_what_was_before(step: int, spent_s: float, more_s: float) -> None:
    begun = Plan(100, 200.0, COSTS)
    plan = corrected(begun, step, spent_s)
    assert plan.position(step) == begun.position(step)
    later = min(step + 5, plan.total - 1)
    if later > step:
        again = corrected(plan, later, spent_s + more_s)
        assert again.position(later) == pytest.approx(plan.position(later))
        assert again.position(step) == plan.position(step)
        assert again.total > later


def test_costs_are_means_over_what_is_left() -> None:
    assert mean_cost(COSTS) == pytest.approx(0.25 * 0.5 + 0.75 * 2.0)
    assert mean_cost(COSTS, 0.5) == 2.0
    assert mean_cost(COSTS, 1.0) == 2.0
    assert plan_steps(((1.0, 0.5),), 100.0, spent_s=10.0) == int((SPARE * 100 - 10) / 0.5)


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = corrected(Plan(100, 200.0, COSTS, 3.0, {"alone": 0.3}), 10, 30.0)
    assert read_plan(plan.document()) == plan


# -- what there is time for ---------------------------------------------------------------------------


def cheap(changes: Mapping[str, Any], share: float) -> float:
    """Seconds by the number of networks and the resolution; in bf16 the same."""
    config = replace(TrainConfig(), **changes)
    alone = share < config.alone or config.schedule == "largest"
    networks = 1 if alone else config.random_subnets + (1 if config.schedule == "alternating" else 2)
    small = config.first_resolution and share < config.full_resolution_at
    return networks * (0.25 if small else 1.0)


@pytest.mark.parametrize(
    ("budget", "left_out"),
    [
        ("1h", set()),
        ("30m", {"schedule", "random_subnets"}),
        ("1500s", {"schedule", "random_subnets", "alone"}),
        ("600s", {"schedule", "random_subnets", "alone", "first_resolution", "full_resolution_at"}),
    ],
)
def test_a_shorter_budget_leaves_more_out(family: Family, budget: str, left_out: set[str]) -> None:
    config = TrainConfig(budget=budget)
    plan = make_plan(family, config, 70, cheap, lambda: 5.0)
    assert set(plan.changes) == left_out
    said = "\n".join(described(plan, config, 70, "images"))
    assert f"in {budget}: about {plan.steps:,} steps" in said
    assert ("left out for that: nothing" in said) == (not left_out)


@given(st.integers(60, 100_000))
def test_more_time_never_gives_fewer_passes(seconds: int) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    for config in (TrainConfig(schedule="largest"), TrainConfig(schedule="shrinking")):
        plans = [
            make_plan(family, replace(config, budget=f"{budget}s"), 70, cheap, lambda: 1.0)
            for budget in (seconds, 2 * seconds)
        ]
        assert plans[0].steps <= plans[1].steps or plans[0].changes != plans[1].changes


@pytest.mark.parametrize(("ratio", "amp"), [(0.6, "bf16"), (2.4, None)])
def test_half_precision_is_used_where_it_pays(
    family: Family, monkeypatch: pytest.MonkeyPatch, ratio: float, amp: str | None
) -> None:
    def measure(changes: Mapping[str, Any], share: float) -> float:
        return cheap(changes, share) * (ratio if changes.get("amp") == "bf16" else 1.0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    config = TrainConfig(budget="2h")
    assert make_plan(family, config, 70, measure, lambda: 5.0).changes.get("amp") == amp
    said = replace(config, amp="off")
    assert "amp" not in make_plan(family, said, 70, measure, lambda: 5.0).changes
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert "amp" not in make_plan(family, config, 70, measure, lambda: 5.0).changes


def test_too_short_a_budget_is_refused(family: Family) -> None:
    with pytest.raises(TrilobitError, match=r"a step takes .* s here, and \d steps are left; give more time"):
        make_plan(family, TrainConfig(budget="8s"), 70, cheap, lambda: 1.0)


def test_no_budget_for_weights_as_they_are() -> None:
    with pytest.raises(TrilobitError, match=r"train\.epochs is 0, weights as they are; leave one out"):
        TrainConfig(budget="1h", epochs=0, init="weights.pt")


def test_kinds_of_steps_are_where_the_schedule_changes(family: Family) -> None:
    assert segment_ends(family, TrainConfig()) == (1.0,)
    assert segment_ends(family, TrainConfig(alone=0.3)) == (0.3, 1.0)
    assert segment_ends(family, TrainConfig(schedule="shrinking")) == (0.4, 1.0)
    sizes = segment_ends(family, TrainConfig(first_resolution=14, full_resolution_at=0.5))
    assert sizes[-2:] == (0.5, 1.0)
    assert list(sizes) == sorted(set(sizes))
    for changes in simplifications(family, TrainConfig()):
        replace(TrainConfig(), **changes)


# -- in a training ------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass only when somebody looks, so long at a time."""

    def __init__(self, tick_s: float) -> None:
        self.now, self.tick_s = 0.0, tick_s

    def monotonic(self) -> float:
        self.now += self.tick_s
        return self.now


def state_of(path: Path, family: Family) -> dict[str, Any]:
    return load_checkpoint(path, fingerprint=family.space().fingerprint)


def test_a_training_ends_with_its_budget_and_keeps_its_plan(
    small_family: Family, few_digits: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "time", Clock(0.5))
    config = TrainConfig(budget="60s", batch_size=16, random_subnets=0, checkpoint_s=0.0)
    path, lines = tmp_path / "last.pt", []
    begun = list(islice(train(few_digits, small_family, config, path, lines), 20))
    assert lines[0].startswith("in 60s: about ")
    stopped = state_of(path, small_family)
    former = read_plan(stopped["plan"])
    assert begun[-1].share == pytest.approx(float(stopped["seconds"]) / 60, abs=0.05)  # of its time
    assert math.isfinite(former.budget_s)
    rest = list(train(few_digits, small_family, config, path, lines))
    assert len(lines) == 2  # a plan is made once
    state = state_of(path, small_family)
    plan = read_plan(state["plan"])
    assert plan.legs[: len(former.legs)] == former.legs
    assert replace(plan, legs=()) == replace(former, legs=())
    assert rest[-1].step == rest[-1].steps == plan.total == state["steps"]
    assert [progress.step for progress in (*begun, *rest)] == list(range(1, plan.total + 1))
    assert 50 <= float(state["seconds"]) <= 62
    shares = [progress.share for progress in (*begun, *rest)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert rest[-1].learning_rate < 0.2 * config.learning_rate


def train(
    task: ImageClassification, family: Family, config: TrainConfig, path: Path, lines: list[str]
) -> Any:
    return loop.train(family, task, config, path, seed=1, say=lines.append)


def test_finding_a_plan_can_be_interrupted(
    small_family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    config, path = TrainConfig(budget="1h", batch_size=16), tmp_path / "last.pt"
    with pytest.raises(KeyboardInterrupt):
        next(loop.train(small_family, few_digits, config, path, seed=1, stop=lambda: True))
    assert not path.exists()


def test_interruptions_between_corrections_change_nothing(
    small_family: Family, few_digits: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(budget="60s", batch_size=16, random_subnets=0, checkpoint_s=0.0)
    monkeypatch.setattr(Plan, "is_due", lambda plan, step: False)  # the clock is all that differs
    results = []
    for name, stops in (("whole", ()), ("resumed", (3, 11))):
        monkeypatch.setattr(loop, "time", Clock(1.0))
        path = tmp_path / f"{name}.pt"
        for stop in stops:
            list(islice(train(few_digits, small_family, config, path, []), stop))
        list(train(few_digits, small_family, config, path, []))
        results.append(state_of(path, small_family))
    whole, resumed = results
    assert whole["plan"] == resumed["plan"]
    assert whole["losses"].tolist() == resumed["losses"].tolist()
    assert all((whole["model"][name] == resumed["model"][name]).all() for name in whole["model"])
