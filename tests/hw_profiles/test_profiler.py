"""Filling a profile: resumed, ordered, patient, and unimpressed by layers that fail."""

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest

from hw_profiles import profiler
from hw_profiles.backend import Job
from hw_profiles.errors import TrilobitError
from hw_profiles.measurement import Estimate, Measurement, MeasurePlan
from hw_profiles.probe import alone
from hw_profiles.profile import DeviceProfile
from hw_profiles.profiler import (
    FEWEST,
    HURRIED,
    measure_networks,
    measure_patiently,
    plan_groups,
    probe_networks,
    profile_layers,
    reference_network,
)
from hw_profiles.workload import LayerSpec, Workload, single
from predictors.table import distinct_layers
from supernet.family import load_family

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
LAYERS = distinct_layers(FAMILY.space(), FAMILY.terms())[::12]
PLAN = MeasurePlan(rounds=2, sessions=1)


def steps(backend, emit, profile=None, *, layers: Sequence[LayerSpec] = LAYERS, seed: int = 0):
    start = profile or DeviceProfile(backend.describe(), PLAN)
    return profile_layers(backend, start, layers, emit=emit, rng=np.random.default_rng(seed))


def finished(backend, emit, profile=None, **options) -> DeviceProfile:
    *_, last = steps(backend, emit, profile, **options)
    return last


def test_every_layer_gets_a_row(backend, no_onnx) -> None:
    profile = finished(backend, no_onnx)
    assert not profile.missing(LAYERS)
    assert all(len(m.samples_s) == PLAN.rounds for m in profile.table.values())


def test_the_estimate_counts_what_is_measured(backend, no_onnx) -> None:
    groups = plan_groups(backend, LAYERS, DeviceProfile(backend.describe(), PLAN), np.random.default_rng(0))
    finished(backend, no_onnx)
    expected = probe_networks(backend, groups, reference_network(backend, LAYERS))
    assert len(backend.measured) == expected


def test_the_profile_grows_group_by_group(backend, no_onnx) -> None:
    sizes = [len(profile.table) for profile in steps(backend, no_onnx)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("groups", [1, 3, 10])
def test_what_was_interrupted_measures_only_what_is_missing(backend, no_onnx, groups: int) -> None:
    whole = finished(backend, no_onnx)
    everything = len(backend.measured)
    *_, interrupted = islice(steps(backend, no_onnx), groups)
    backend.measured.clear()
    resumed = finished(backend, no_onnx, interrupted)
    assert resumed.table == whole.table
    assert all(resumed.table[layer] is row for layer, row in interrupted.table.items())
    assert len(backend.measured) < everything


def test_a_whole_profile_costs_nothing(backend, no_onnx) -> None:
    whole = finished(backend, no_onnx)
    backend.measured.clear()
    assert list(steps(backend, no_onnx, whole)) == []
    assert backend.measured == []


def test_the_order_is_random_and_changes_nothing(backend, no_onnx) -> None:
    one = finished(backend, no_onnx, seed=1)
    first, backend.measured[:] = list(backend.measured), []
    assert finished(backend, no_onnx, seed=2).table == one.table
    assert backend.measured != first


def test_unsupported_layers_become_rows_with_an_error(backend, no_onnx) -> None:
    rejected = tuple(layer for layer in LAYERS if layer.op == "conv")[:3]
    profile = finished(replace(backend, rejected=rejected), no_onnx)
    assert {layer for layer, row in profile.table.items() if row.error} == set(rejected)
    assert profile.table[rejected[0]].error == "it is on the list"


def test_layers_that_fail_become_rows_with_their_error(backend, no_onnx) -> None:
    failing = next(layer for layer in LAYERS if layer.op == "conv")
    measure = backend.measure

    def fail(jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        return [
            Measurement(error="no such kernel") if failing in job.workload.layers else measured
            for job, measured in zip(jobs, measure(jobs, plan), strict=True)
        ]

    backend.measure = fail
    profile = finished(backend, no_onnx)
    assert profile.table[failing].error == "no such kernel"
    assert sum(row.error is None for row in profile.table.values()) > len(profile.table) / 2


# -- disturbances -------------------------------------------------------------------------------------


def test_disturbed_rows_are_measured_again(backend, no_onnx) -> None:
    backend.disturb = lambda measured: 0.1 if measured < 100 else 1.0
    profile = finished(backend, no_onnx)
    assert not profile.disturbed(LAYERS)
    assert len(backend.measured) > 100


def test_a_later_start_measures_disturbed_rows_again(backend, no_onnx) -> None:
    backend.disturb = lambda measured: 0.1
    impatient = DeviceProfile(backend.describe(), replace(PLAN, remeasure_s=0.0))
    hurried = finished(backend, no_onnx, impatient)
    assert hurried.disturbed(LAYERS)
    backend.disturb = lambda measured: 1.0
    assert not finished(backend, no_onnx, replace(hurried, plan=PLAN)).disturbed(LAYERS)


def test_the_quieter_measurement_is_kept(backend, no_onnx) -> None:
    backend.disturb = lambda measured: 0.5
    whole = finished(backend, no_onnx, DeviceProfile(backend.describe(), replace(PLAN, remeasure_s=0.0)))
    backend.disturb = lambda measured: 0.2
    assert finished(backend, no_onnx, whole).table == whole.table


@dataclass
class PatientOnly:
    """Quiet is found only by those who wait long enough."""

    needed_s: Callable[[Workload], float]
    asked: list[int]

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        self.asked.append(len(jobs))
        return [
            Measurement((1.0,), quiet_share=float(plan.patience_s >= self.needed_s(job.workload)))
            for job in jobs
        ]


def jobs(n: int) -> list[Job]:
    space = FAMILY.space()
    genomes = space.sample(n, rng=np.random.default_rng(0))
    return [Job(FAMILY.workload(space.candidate(genome)), lambda: b"") for genome in genomes]


def test_networks_are_measured_again_with_more_patience_and_only_those() -> None:
    few = jobs(4)
    restless = few[2].workload
    backend = PatientOnly(lambda work: 5 * PLAN.patience_s if work is restless else 0.0, [])
    assert [m.quiet_share for m in measure_patiently(backend, few, PLAN)] == [1.0] * 4
    assert (backend.asked[0], set(backend.asked[1:])) == (4, {1})


def test_patience_ends() -> None:
    backend = PatientOnly(lambda work: float("inf"), [])
    assert [m.quiet_share for m in measure_patiently(backend, jobs(3), PLAN)] == [0.0] * 3
    assert backend.asked[0] == 3
    assert sum(backend.asked) < 20


def test_whole_networks_are_measured_beside_their_sums(backend, no_onnx) -> None:
    space = FAMILY.space()
    work = FAMILY.workload(space.candidate(space.sample(1, rng=np.random.default_rng(0))[0]))
    profile = finished(backend, no_onnx, layers=list(dict.fromkeys(work.layers)))
    networks = [("mixed", i % 2 == 0, work) for i in range(30)]
    measured = measure_networks(backend, profile, networks, emit=no_onnx)
    assert [net.held_out for net in measured] == [held_out for _, held_out, _ in networks]
    assert [net.measured_s for net in measured] == [pytest.approx(backend.network_s(work))] * 30
    assert sum(measured[0].sums_s) == pytest.approx(sum(map(profile.cost_s, work.layers)))
    assert sum(measured[0].rows) == len(work.layers)


def test_a_whole_network_that_fails_is_a_bug(backend, no_onnx, device_profile: DeviceProfile) -> None:
    backend.measure = lambda jobs, plan: [Measurement(error="crashed")] * len(jobs)
    with pytest.raises(RuntimeError, match="a whole int8 network failed: crashed"):
        measure_networks(backend, device_profile, [("int8", True, jobs(1)[0].workload)], emit=no_onnx)


def test_a_group_measured_while_everything_was_slower_is_measured_again(backend, no_onnx) -> None:
    slow = set(range(30, 60))
    measure, seen = backend.measure, [0]

    def drifting(jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        seen[0] += 1
        factor = 1.3 if seen[0] in slow else 1.0
        return [
            Measurement(tuple(factor * s for s in m.samples_s), quiet_share=m.quiet_share)
            for m in measure(jobs, plan)
        ]

    backend.measure = drifting
    profile = finished(backend, no_onnx)
    assert max(abs(profile.drift(layer)) for layer in LAYERS) < PLAN.max_drift
    again = finished(type(backend)(backend.secret_s), no_onnx)
    assert all(profile.cost_s(layer) == pytest.approx(again.cost_s(layer)) for layer in LAYERS)


def test_no_group_but_the_first_is_begun_after_the_deadline(backend, no_onnx) -> None:
    start = DeviceProfile(backend.describe(), PLAN)
    rng = np.random.default_rng(0)
    options = {"emit": no_onnx, "rng": rng}
    profiles = list(profile_layers(backend, start, LAYERS, deadline=time.monotonic() - 1, **options))
    assert len(profiles) == 1
    assert 0 < len(profiles[0].table) < len(LAYERS)


@dataclass
class Clock:
    """Moves on by what measuring takes."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(profiler, "time", made)
    return made


def test_in_a_hurry_few_units_are_begun_at_a_time(backend, no_onnx, clock: Clock) -> None:
    """An engine that tunes each unit for a second overshoots a deadline by what it has begun."""
    backend.probe, measure = alone, backend.measure

    def tuned(jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        clock.now += len(jobs)
        return measure(jobs, plan)

    backend.measure = tuned
    start = DeviceProfile(backend.describe(), PLAN)
    options = {"emit": no_onnx, "rng": np.random.default_rng(0)}
    *_, last = profile_layers(backend, start, LAYERS, deadline=20.0, **options)
    assert 20 < clock.now <= 20 + HURRIED + 1  # the reference beside them
    assert 0 < len(last.table) < len(LAYERS)


@pytest.mark.parametrize(("network_s", "deadline", "expected"), [(1, 1000, 40), (1, 21, 21), (10, 5, FEWEST)])
def test_networks_are_begun_as_long_as_they_fit(
    network_s: float, deadline: float, expected: int, backend, no_onnx, clock: Clock
) -> None:
    measure, works = backend.measure, [job.workload for job in jobs(40)]

    def slow(jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        clock.now += network_s * len(jobs) / plan.sessions
        return measure(jobs, plan)

    rows = {layer: Measurement((1e-6,)) for work in works for layer in work.layers}
    profile = DeviceProfile(backend.describe(), PLAN, rows)
    backend.measure = slow
    networks = [("mixed", False, work) for work in works]
    assert len(measure_networks(backend, profile, networks, emit=no_onnx, deadline=deadline)) == expected


@pytest.mark.parametrize(("unit_s", "begun"), [(0.1, True), (10.0, False)])
def test_networks_whose_units_would_have_to_be_tuned_first_are_not_begun_too_late(
    unit_s: float, begun: bool, backend, no_onnx, clock: Clock
) -> None:
    backend.probe, works = alone, [job.workload for job in jobs(2)]
    estimates = {layer: Estimate(1e-6, 1e-7) for work in works for layer in work.layers}
    profile = DeviceProfile(backend.describe(), PLAN, estimates=estimates)
    networks = [("mixed", False, work) for work in works]
    options = {"emit": no_onnx, "deadline": 10.0, "unit_s": unit_s}
    assert bool(measure_networks(backend, profile, networks, **options)) == begun


def test_networks_that_the_device_cannot_run_are_left_out(backend, no_onnx) -> None:
    genomes = FAMILY.space().sample(4, rng=np.random.default_rng(0))
    works = [FAMILY.workload(FAMILY.space().candidate(genome)) for genome in genomes]
    rejected = works[0].layers[3]
    rows = {layer: Measurement((1e-6,)) for work in works for layer in work.layers}
    profile = DeviceProfile(backend.describe(), PLAN, {**rows, rejected: Measurement(error="no kernel")})
    networks = [("mixed", False, work) for work in works]
    measured = measure_networks(backend, profile, networks, emit=no_onnx)
    assert len(measured) == sum(rejected not in work.layers for work in works) < 4


def test_several_boards_measure_groups_at_a_time_and_none_is_lost(backend, no_onnx) -> None:
    """Where a unit's own time is its cost, as on boards."""
    backend.boards, backend.probe = 3, alone
    rows = finished(backend, no_onnx)
    assert not rows.missing(LAYERS)
    own_s = {layer: backend.network_s(single(layer)) for layer in LAYERS}
    assert {layer: rows.cost_s(layer) for layer in LAYERS} == pytest.approx(own_s)


def test_what_was_measured_before_a_board_fails_is_there(backend, no_onnx) -> None:
    backend.boards, backend.probe = 2, alone
    measure, calls = backend.measure, [0]

    def failing(jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        calls[0] += 1
        if calls[0] > 4:
            raise TrilobitError("no board is left")
        return measure(jobs, plan)

    backend.measure = failing
    seen: list[DeviceProfile] = []
    with pytest.raises(TrilobitError, match="no board is left"):
        collections.deque(map(seen.append, steps(backend, no_onnx)), maxlen=0)
    last = seen[-1]
    assert last.table
    backend.measure = measure
    done = len(backend.measured)
    assert not finished(backend, no_onnx, last).missing(LAYERS)
    assert len(backend.measured) - done < len(LAYERS) + 20  # what was there was not measured again
