"""What a tune takes is known before, and slow models are tuned on less."""

import math
from dataclasses import replace

import pytest

from hw_profiles.measure.measurement import MeasurePlan
from nas.tune.estimates import CHOOSING, JUDGING, LEAST, SLOW_S, Costs, Work, affordable, spared
from nas.tune.result.judge import FEWEST_ROUNDS, turns_of

WHOLE = Work(calibration=32, choosing=48, judging=128, slots=130, evaluations=120, rounds=3, finalists=12)
MEGABYTES = 12_000_000


def costs(run_s: float) -> Costs:
    return Costs.of(run_s, open_s=0.05, size_bytes=MEGABYTES)


def test_fewer_examples_are_run_where_each_takes_long() -> None:
    for examples in (CHOOSING, JUDGING):
        counts = [examples.count(run_s) for run_s in (1e-6, 1e-3, 1e-2, 4e-2, 0.1, 1.0, 100.0)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] == examples.most
        assert examples.usual in counts
        assert counts[-1] == examples.least


@pytest.mark.parametrize("run_s", [1e-4, 1e-3, 1e-2, 0.02])
def test_fast_models_are_tuned_on_all_policies(run_s: float) -> None:
    assert affordable(WHOLE, costs(run_s), math.inf) == WHOLE
    assert not spared(WHOLE, costs(run_s), WHOLE.evaluations)


def test_a_slow_model_takes_ten_minutes() -> None:
    slow = costs(0.093)
    whole = Work(32, CHOOSING.count(0.093), JUDGING.count(0.093), 130, 120, 3, 12)
    less = affordable(whole, slow, math.inf)
    assert sum(slow.stages(less).values()) <= 1.1 * SLOW_S
    assert LEAST * whole.evaluations <= less.evaluations < whole.evaluations
    line = spared(less, slow, whole.evaluations)
    assert f"{less.evaluations} policies are evaluated, not the usual 120" in line
    assert "--budget" in line
    more = affordable(whole, slow, 3 * SLOW_S)
    assert more == whole
    assert sum(slow.stages(more, 3 * SLOW_S).values()) <= 3 * SLOW_S


def test_very_slow_models_keep_what_something_can_be_learned_from() -> None:
    assert affordable(WHOLE, costs(2.0), math.inf).evaluations == round(LEAST * WHOLE.evaluations)
    assert affordable(WHOLE, costs(2.0), 60.0).evaluations < LEAST * WHOLE.evaluations


def test_slow_files_are_timed_in_fewer_turns() -> None:
    plan = MeasurePlan()
    assert turns_of(plan, 1e-3, 20) == plan
    assert turns_of(plan, 0.1, 20) == replace(plan, warmup_runs=0)
    assert turns_of(plan, 2.0, 20) == replace(plan, warmup_runs=0, rounds=FEWEST_ROUNDS)
    few = replace(plan, rounds=3)
    assert turns_of(few, 2.0, 20).rounds == 3
