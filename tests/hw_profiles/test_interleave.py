"""Taking turns and waiting for quiet, on a clock and a core of our own making."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from hw_profiles.interleave import interleaved, timed
from hw_profiles.measurement import MeasurePlan

PLAN = MeasurePlan(rounds=8, window_s=1e-3, warmup_runs=1, patience_s=2.0, clock="wall")
PULSE_S = 1e-5


@dataclass
class Core:
    """A clock that only work moves on, and a core that others slow down from time to time."""

    slowdown: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0
    turns: list[str] = field(default_factory=list)

    def work(self, seconds: float) -> float:
        """Do what takes so long on a quiet core; gives what it took."""
        spent = seconds * self.slowdown(self.now)
        self.now += spent
        return spent

    def run(self, name: str, seconds: float) -> Callable[[int], float]:
        def runs(count: int) -> float:
            start = self.now
            for _ in range(count):
                self.turns.append(name)
                self.work(seconds)
            return self.now - start

        return runs

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(self.now * 1e9)


@dataclass
class Pulse:
    """The reference computation on that core."""

    core: Core
    floor_s: float = PULSE_S

    def measure_s(self) -> float:
        return self.core.work(PULSE_S)

    def learn(self) -> None:
        pass


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    monkeypatch.setattr("hw_profiles.interleave.time", made)
    return made


def test_samples_are_seconds_per_run(core: Core) -> None:
    one, other = interleaved([core.run("a", 1e-4), core.run("b", 3e-4)], PLAN, Pulse(core))
    assert one.seconds == pytest.approx([1e-4] * PLAN.rounds, rel=1e-3)
    assert other.seconds == pytest.approx([3e-4] * PLAN.rounds, rel=1e-3)
    assert one.quiet_share == other.quiet_share == 1.0


def test_functions_take_turns_round_by_round(core: Core) -> None:
    names = ["a", "b", "c"]
    interleaved([core.run(name, 1e-3) for name in names], PLAN, Pulse(core))
    windows = core.turns[-PLAN.rounds * len(names) * 2 :]  # a warm-up run and one that counts
    assert windows == [name for name in names for _ in range(2)] * PLAN.rounds


def test_slow_drift_cancels_within_a_round(core: Core) -> None:
    core.slowdown = lambda now: 1 + 2 * now
    patient = replace(PLAN, quiet=100.0)
    one, other = interleaved([core.run("a", 1e-4), core.run("b", 2e-4)], patient, Pulse(core))
    assert one.seconds[-1] > 1.02 * one.seconds[0]
    ratios = [b / a for a, b in zip(one.seconds, other.seconds, strict=True)]
    assert ratios == pytest.approx([2.0] * PLAN.rounds, rel=1e-2)


def test_waits_until_the_core_is_quiet(core: Core) -> None:
    core.slowdown = lambda now: 1.5 if now % 0.05 < 0.03 else 1.0
    [samples] = interleaved([core.run("a", 1e-4)], replace(PLAN, rounds=60), Pulse(core))
    assert samples.quiet_share == 1.0
    assert max(samples.seconds) < 1.2e-4


def test_gives_up_at_the_deadline_and_says_so(core: Core) -> None:
    core.slowdown = lambda now: 1.5
    samples = interleaved([core.run("a", 1e-4), core.run("b", 1e-4)], PLAN, Pulse(core))
    assert [one.quiet_share for one in samples] == [0.0, 0.0]
    assert all(len(one.seconds) == PLAN.rounds for one in samples)
    assert PLAN.patience_s < core.now < 1.2 * PLAN.patience_s


def test_without_patience_every_window_counts(core: Core) -> None:
    core.slowdown = lambda now: 1.5
    [samples] = interleaved([core.run("a", 1e-4)], replace(PLAN, patience_s=0.0), Pulse(core))
    assert samples.seconds == pytest.approx([1.5e-4] * PLAN.rounds, rel=1e-2)


def test_the_thread_clock_does_not_count_other_threads(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "thread_time_ns", lambda: round(core.now * 0.25e9), raising=False)
    run = timed(lambda: core.work(1e-4), replace(PLAN, clock="thread"))
    [samples] = interleaved([run], PLAN, Pulse(core))
    assert samples.seconds == pytest.approx([0.25e-4] * PLAN.rounds, rel=1e-2)


def test_nothing_to_measure_gives_nothing(core: Core) -> None:
    assert interleaved([], PLAN, Pulse(core)) == []
