"""Passes, and the quiet windows among them, on a clock and a core of our own making."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.measure.interleave import ReferenceWorkload, interleaved, timed, watching
from hw_profiles.measure.measurement import FEWEST_UNDISTURBED, MeasurePlan, Samples
from tests.hw_profiles.restless import Core, stretches, time_slices

PLAN = MeasurePlan(rounds=8, window_s=1e-3, warmup_runs=1, waiting_s=2.0, clock="wall")
REAL = MeasurePlan()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    monkeypatch.setattr("hw_profiles.measure.interleave.time", made)
    monkeypatch.setattr("hw_profiles.measure.interleave.LEARNING_S", 1.0)
    return made


def median_s(samples: Samples) -> float:
    return float(np.median(samples.seconds))


def test_samples_are_seconds_per_run(core: Core) -> None:
    one, other = interleaved([[core.run("a", 1e-4)], [core.run("b", 3e-4)]], PLAN, core.reference())
    assert one.seconds == pytest.approx([1e-4] * PLAN.rounds, rel=1e-3)
    assert other.seconds == pytest.approx([3e-4] * PLAN.rounds, rel=1e-3)
    assert one.quiet_share == other.quiet_share == 1.0
    assert one.waited_s == 0.0


def test_every_pass_has_a_window_of_each_after_its_warm_up(core: Core) -> None:
    names = ["a", "b", "c"]
    interleaved([[core.run(name, 1e-3)] for name in names], PLAN, core.reference())
    windows = core.turns[-PLAN.rounds * len(names) * 2 :]  # a warm-up run and one that counts
    assert windows == [name for name in names for _ in range(2)] * PLAN.rounds


def test_passes_take_sessions_in_turns(core: Core) -> None:
    interleaved([[core.run("first", 1e-3), core.run("second", 1e-3)]], PLAN, core.reference())
    assert core.turns[-PLAN.rounds * 2 :] == ["first", "first", "second", "second"] * (PLAN.rounds // 2)


def test_slow_drift_cancels_within_a_context(core: Core) -> None:
    core.slowdown = lambda now: 1 + 2 * max(0.0, now - 1.0)
    runs = [[core.run("a", 1e-4)], [core.run("b", 2e-4)]]
    one, other = interleaved(runs, replace(PLAN, quiet=100.0), core.reference(), ["same", "same"])
    assert one.seconds[-1] > 1.02 * one.seconds[0]
    ratios = [b / a for a, b in zip(one.seconds, other.seconds, strict=True)]
    assert ratios == pytest.approx([2.0] * PLAN.rounds, rel=1e-2)


def test_samples_of_a_context_are_of_the_same_passes(core: Core) -> None:
    """One of them is disturbed in every other pass: that pass counts for neither."""
    runs = [[core.run("a", 1e-4)], [core.run("b", 1e-4)]]
    core.slowdown = lambda now: (
        2.0 if core.turns and core.turns[-1] == "b" and len(core.turns) % 8 < 4 else 1.0
    )
    together = interleaved(runs, replace(PLAN, waiting_s=0.0), core.reference(), ["same", "same"])
    assert len({(len(one.seconds), one.quiet_share) for one in together}) == 1


@pytest.mark.parametrize("quiet_share", [0.21, 0.25, 0.29])
@pytest.mark.parametrize("seed", range(3))
def test_a_host_that_is_rarely_quiet_gives_each_its_quiet_windows(
    core: Core, quiet_share: float, seed: int
) -> None:
    """As measured on a real one: quiet for about a quarter of the time, whole seconds not at all."""
    rng = np.random.default_rng(seed)
    core.slowdown = stretches(rng, quiet_share)
    true_s = rng.uniform(5e-6, 4e-4, 45)
    runs = [[core.run("", seconds, rng.uniform(0.8, 1.5))] for seconds in true_s]
    samples = interleaved(runs, replace(REAL, waiting_s=30.0), core.reference())
    assert {one.quiet_share for one in samples} == {1.0}
    assert min(len(one.seconds) for one in samples) >= REAL.rounds
    assert [median_s(one) for one in samples] == pytest.approx(true_s, rel=1e-3)
    assert samples[0].waited_s < 30.0


def test_what_has_its_windows_does_not_hold_up_the_others(core: Core) -> None:
    core.slowdown = lambda now: 1.5 if core.turns and core.turns[-1] == "late" and now < 3.0 else 1.0
    reference = core.reference()
    runs = [[core.run(name, 1e-3)] for name in ("early", "late", "after it")]
    interleaved(runs, replace(PLAN, waiting_s=30.0), reference)
    assert core.turns.count("early") < 100 < core.turns.count("late")


def test_waiting_ends_when_its_time_is_over_and_the_samples_say_so(core: Core) -> None:
    reference = core.reference()
    core.slowdown = lambda now: 1.5
    start = core.now
    samples = interleaved([[core.run("a", 1e-4)], [core.run("b", 1e-4)]], PLAN, reference)
    assert [one.quiet_share for one in samples] == [0.0, 0.0]
    assert all(len(one.seconds) == PLAN.rounds for one in samples)
    assert PLAN.waiting_s < core.now - start < 1.1 * PLAN.waiting_s
    assert samples[0].waited_s == pytest.approx(PLAN.waiting_s, rel=0.1)


def test_without_waiting_there_are_as_many_passes_as_rounds(core: Core) -> None:
    reference = core.reference()
    core.slowdown = lambda now: 1.5
    [samples] = interleaved([[core.run("a", 1e-4)]], replace(PLAN, waiting_s=0.0), reference)
    assert samples.seconds == pytest.approx([1.5e-4] * PLAN.rounds, rel=1e-2)
    assert samples.waited_s == 0.0


def test_few_quiet_windows_are_better_than_many_disturbed_ones(core: Core) -> None:
    reference = core.reference()
    quiet_until = core.now + 0.016
    core.slowdown = lambda now: 1.0 if now < quiet_until else 1.5
    [samples] = interleaved([[core.run("a", 1e-3)]], PLAN, reference)
    assert FEWEST_UNDISTURBED <= len(samples.seconds) < PLAN.rounds
    assert samples.quiet_share == 1.0
    assert median_s(samples) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("scale", [False, True])
def test_where_the_core_is_never_quiet_functions_are_compared_at_its_usual_speed(
    core: Core, scale: bool
) -> None:
    """Each slows down by a factor of its own: no reference tells what it would take on a quiet core."""
    reference, rng = core.reference(), np.random.default_rng(0)
    levels = rng.choice([1.3, 1.7, 1.71, 2.5], p=[0.2, 0.35, 0.35, 0.1], size=1000)
    core.slowdown = lambda now: levels[int(now * 50)]  # in stretches of 20 ms
    true_s, sensitivities = rng.uniform(1e-5, 4e-4, 12), rng.uniform(0.6, 1.5, 12)
    runs = [[core.run("", one_s, factor)] for one_s, factor in zip(true_s, sensitivities, strict=True)]
    samples = interleaved(runs, replace(PLAN, scale_disturbed=scale), reference)
    assert {each.quiet_share for each in samples} == {0.0}
    usual_s = true_s * (1 + 0.7 * sensitivities)
    assert [median_s(each) for each in samples] == pytest.approx(usual_s, rel=0.03)


def test_functions_that_found_no_quiet_window_are_scaled_to_the_quiet_speed_of_the_others(
    core: Core,
) -> None:
    reference = core.reference()
    core.slowdown = lambda now: 1.5 if core.turns and core.turns[-1] == "disturbed" else 1.0
    runs = [[core.run(name, 1e-4)] for name in ("a", "b", "disturbed", "after it")]
    scaled, plan = {}, replace(PLAN, waiting_s=0.1)
    for scale in (False, True):
        *_, scaled[scale], after = interleaved(runs, replace(plan, scale_disturbed=scale), reference)
        assert (scaled[scale].quiet_share, after.quiet_share) == (0.0, 0.0)
    assert median_s(scaled[False]) == pytest.approx(1.5e-4, rel=0.01)
    assert median_s(scaled[True]) == pytest.approx(1.2e-4, rel=0.01)  # by the references around


def test_the_usual_time_of_the_reference_is_that_between_networks(core: Core) -> None:
    """Behind a network it is slower than one after the other, and lucky runs are faster than either."""
    rng = np.random.default_rng(0)
    core.slowdown = lambda now: (1.12 if core.turns else 1.0) * rng.choice([0.93, 1.0], p=[0.01, 0.99])
    samples = interleaved([[core.run("", 1e-4)]] * 10, PLAN, core.reference())
    assert {each.quiet_share for each in samples} == {1.0}
    assert [median_s(each) for each in samples] == pytest.approx([1.12e-4] * 10, rel=1e-3)
    assert samples[0].waited_s < 0.1


def test_a_pulse_learnt_in_a_disturbed_second_is_corrected(core: Core) -> None:
    core.slowdown = lambda now: 1.5 if now < 1.02 else 1.0
    reference = core.reference()
    assert reference.usual_s == pytest.approx(1.5 * 3 * 8e-6)
    samples = interleaved([[core.run("a", 1e-4)]] * 10, REAL, reference)
    assert [median_s(one) for one in samples] == pytest.approx([1e-4] * 10, rel=1e-3)


def test_load_20_neither_hides_quiet_windows_nor_counts_what_others_took(core: Core) -> None:
    core.taken = time_slices(20)
    true_s = np.linspace(1e-5, 3e-4, 10)
    reference, start = core.reference(), core.now
    samples = interleaved([[core.run("", seconds)] for seconds in true_s], REAL, reference)
    assert {one.quiet_share for one in samples} == {1.0}
    assert [median_s(one) for one in samples] == pytest.approx(true_s, rel=1e-2)
    assert core.now - start < REAL.waiting_s


def test_who_watches_is_told_of_progress_and_of_waiting(core: Core) -> None:
    reference, seen = core.reference(), list[tuple[float, bool]]()
    quiet_from = core.now + 1.0
    core.slowdown = lambda now: 1.0 if now > quiet_from else 1.5
    with watching(lambda share, waiting: seen.append((share, waiting))):
        interleaved([[core.run("a", 1e-4)]], PLAN, reference)
    assert seen[0] == (0.0, False)
    assert (0.0, True) in seen
    assert seen[-1] == (1.0, True)
    told = len(seen)
    interleaved([[core.run("a", 1e-4)]], PLAN, reference)
    assert len(seen) == told


def test_the_thread_clock_does_not_count_other_threads(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "thread_time_ns", lambda: round(core.now * 0.25e9), raising=False)
    run = timed(lambda: core.work(1e-4), "thread")
    [samples] = interleaved([[run]], PLAN, core.reference())
    assert samples.seconds == pytest.approx([0.25e-4] * PLAN.rounds, rel=1e-2)


def test_nothing_to_measure_gives_nothing(core: Core) -> None:
    assert interleaved([], PLAN, core.reference()) == []


def test_the_pulse_warms_itself_before_it_is_timed(core: Core) -> None:
    """What ran before has evicted its numbers: a reference without a warming run is never quiet."""
    counts = list[int]()
    reference = ReferenceWorkload(lambda count: counts.append(count) or core.work(count * 8e-6))
    counts.clear()
    reference.measure_s()
    assert counts == [1, 3]
