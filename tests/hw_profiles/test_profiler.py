"""Filling a profile: resumed, ordered, patient, and unimpressed by layers that fail."""

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.measurement import FEWEST_UNDISTURBED, Estimate, Measurement, MeasurePlan, WaitBudget
from hw_profiles.profiles import batches as batching
from hw_profiles.profiles import profiler, whole_networks
from hw_profiles.profiles.batches import HURRIED, plan_batches, probe_networks, reference_network
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import VISITS, profile_layers
from hw_profiles.profiles.rebasing import rebased
from hw_profiles.profiles.whole_networks import FEWEST, TRUTH, measure_networks, measure_within_budget
from hw_profiles.runtimes.runtime import Job
from predictors.table import distinct_layers
from supernet.families.family import load_family
from tests.hw_profiles.restless import Core, RestlessBackend, stretches, time_slices

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
LAYERS = distinct_layers(FAMILY.space(), FAMILY.terms())[::12]
PLAN = MeasurePlan(rounds=2, sessions=1)
REAL = MeasurePlan(scale_disturbed=True)


def steps(backend, emit, profile=None, *, layers: Sequence[Layer] = LAYERS, seed: int = 0):
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
    batches = plan_batches(backend, LAYERS, DeviceProfile(backend.describe(), PLAN), np.random.default_rng(0))
    finished(backend, no_onnx)
    expected = probe_networks(backend, batches, reference_network(backend, LAYERS))
    assert len(backend.measured) == expected


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BATCH", 12)


def test_the_profile_grows_batch_by_batch(backend, no_onnx, small_batches: None) -> None:
    sizes = [len(profile.table) for profile in steps(backend, no_onnx)]
    assert sizes == sorted(set(sizes))
    assert len(sizes) > 5


def test_a_batch_is_bounded_in_number_and_in_memory(
    backend, no_onnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes() -> list[int]:
        profile = DeviceProfile(backend.describe(), PLAN)
        batches = plan_batches(backend, LAYERS, profile, np.random.default_rng(0))
        planned = {layer for batch in batches for layer in batch.layers}
        assert planned >= set(LAYERS)
        return [probe_networks(backend, [batch], None) for batch in batches]

    largest = max(sizes())
    monkeypatch.setattr(batching, "BATCH", 20)
    assert max(sizes()) <= 20 < largest
    monkeypatch.setattr(batching, "BATCH", 256)
    monkeypatch.setattr(batching, "BATCH_BYTES", 20 * batching.SESSION_BYTES)
    assert max(sizes()) < 20


@pytest.mark.parametrize("groups", [1, 3, 10])
def test_what_was_interrupted_measures_only_what_is_missing(
    backend, no_onnx, small_batches: None, groups: int
) -> None:
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
    rejected = tuple(layer for layer in LAYERS if layer.kind == "conv")[:3]
    profile = finished(replace(backend, rejected=rejected), no_onnx)
    assert {layer for layer, row in profile.table.items() if row.error} == set(rejected)
    assert profile.table[rejected[0]].error == "it is on the list"


def test_layers_that_fail_become_rows_with_their_error(backend, no_onnx) -> None:
    failing = next(layer for layer in LAYERS if layer.kind == "conv")
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
    assert not profile.to_measure_again(LAYERS)
    assert len(backend.measured) > 100


def test_a_later_start_measures_disturbed_rows_again(backend, no_onnx) -> None:
    backend.disturb = lambda measured: 0.1
    impatient = DeviceProfile(backend.describe(), replace(PLAN))
    hurried = finished(backend, no_onnx, impatient)
    assert hurried.to_measure_again(LAYERS)
    backend.disturb = lambda measured: 1.0
    assert not finished(backend, no_onnx, replace(hurried, plan=PLAN)).to_measure_again(LAYERS)


def test_the_quieter_measurement_is_kept(backend, no_onnx) -> None:
    backend.disturb = lambda measured: 0.5
    whole = finished(backend, no_onnx, DeviceProfile(backend.describe(), replace(PLAN)))
    backend.disturb = lambda measured: 0.2
    assert finished(backend, no_onnx, whole).table == whole.table


def jobs(n: int) -> list[Job]:
    space = FAMILY.space()
    genomes = space.sample(n, rng=np.random.default_rng(0))
    return [Job(FAMILY.workload(space.candidate(genome)), lambda: b"") for genome in genomes]


@dataclass
class Restless:
    """Quiet is found only by those who may wait long enough, and that is spent.

    Attributes:
        plans: that it was asked to measure by.
    """

    needed_s: float
    plans: list[MeasurePlan] = field(default_factory=list)

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        self.plans.append(plan)
        waited_s = min(self.needed_s, plan.waiting_s)
        quiet = float(waited_s == self.needed_s)
        return [Measurement((1.0,), quiet_share=quiet, waited_s=waited_s) for _ in jobs]


def test_whole_networks_get_more_windows_than_units() -> None:
    backend = Restless(0.0)
    measure_within_budget(backend, jobs(2), PLAN)
    assert [plan.rounds for plan in backend.plans] == [TRUTH * PLAN.rounds] > [PLAN.rounds]


def test_what_waits_shares_what_may_be_waited() -> None:
    backend, waiting = Restless(15.0), WaitBudget(40.0)
    shares = [measure_within_budget(backend, jobs(3), PLAN, waiting)[0].quiet_share for _ in range(4)]
    assert shares == [1.0, 1.0, 0.0, 0.0]
    assert waiting.left_s == 0.0
    assert [plan.waiting_s for plan in backend.plans] == [40.0, 25.0, 10.0, 0.0]


def test_a_part_of_the_waiting_gives_back_what_it_does_not_spend() -> None:
    waiting = WaitBudget(40.0)
    with waiting.part(0.5) as some:
        assert some.left_s == 20.0
        some.spend(5.0)
    assert waiting.left_s == 35.0
    with waiting.part(0.5, most_s=3.0) as some:
        some.spend(100.0)
    assert waiting.left_s == 32.0


def test_rows_that_never_become_steady_are_not_measured_for_ever(backend, no_onnx) -> None:
    backend.disturb = lambda measured: 0.0
    batches = plan_batches(backend, LAYERS, DeviceProfile(backend.describe(), PLAN), np.random.default_rng(0))
    finished(backend, no_onnx)
    assert len(backend.measured) <= VISITS * probe_networks(backend, batches, single(LAYERS[0]))


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
    monkeypatch.setattr(whole_networks, "time", made)
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
        clock.now += network_s * len(jobs)
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


# -- on a machine that is rarely quiet ----------------------------------------------------------------


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    for module in ("measure.interleave", "profiles.profiler", "profiles.whole_networks"):
        monkeypatch.setattr(f"hw_profiles.{module}.time", made)
    monkeypatch.setattr("hw_profiles.measure.interleave.LEARNING_S", 1.0)
    return made


def tiny_s(layer: Layer) -> float:
    """As long as a unit takes on a real machine."""
    return float(np.random.default_rng(list(layer.key().encode())).uniform(2e-6, 4e-5))


def profiled(core: Core, emit) -> tuple[float, DeviceProfile]:
    """Seconds and a profile of a device whose truth is `tiny_s`."""
    backend, start = RestlessBackend(core, tiny_s), core.now
    *_, profile = steps(backend, emit, DeviceProfile(backend.describe(), REAL))
    return core.now - start, profile


@pytest.mark.parametrize(
    ("disturb", "work"),  # how much longer the same work takes there
    [
        (lambda core: setattr(core, "slowdown", stretches(np.random.default_rng(1), 0.21)), 1.65),
        (lambda core: setattr(core, "slowdown", stretches(np.random.default_rng(2), 0.29)), 1.65),
        (lambda core: setattr(core, "taken", time_slices(20)), 21),
        (lambda core: None, 1.01),
    ],
    ids=["quiet 21 % of the time", "quiet 29 %", "load 20", "idle"],
)
def test_a_profile_is_right_and_in_time_however_busy_the_machine(
    core: Core, no_onnx, disturb: Callable[[Core], None], work: float
) -> None:
    idle_s, _ = profiled(core, no_onnx)
    disturb(core)
    elapsed_s, profile = profiled(core, no_onnx)
    assert elapsed_s <= work * idle_s + REAL.waiting_s
    truth = DeviceProfile(profile.device, REAL, {layer: Measurement((tiny_s(layer),)) for layer in LAYERS})
    off = [profile.cost_s(layer) / truth.cost_s(layer) - 1 for layer in LAYERS if layer.kind == "conv"]
    assert np.median(np.abs(off)) < 0.01
    assert np.percentile(np.abs(off), 95) < 0.02
    assert min(profile.table[layer].undisturbed_windows for layer in LAYERS) >= FEWEST_UNDISTURBED


def test_rows_follow_a_pooling_that_is_measured_anew(backend, no_onnx) -> None:
    """What they are differences from was measured while the core was disturbed, and corrected later."""
    whole = finished(backend, no_onnx)
    plain = [layer for layer in whole.table if layer.kind == "conv" and layer.activation_format == "fp32"]
    strided = next(layer for layer in plain if len({pool for _, pool in backend.probe(layer).pools}) == 2)
    for _, base in backend.probe(strided).pools:  # of its input and of its output
        wrong = replace(whole.table[base], samples_s=tuple(s + 5e-6 for s in whole.table[base].samples_s))
        moved = rebased(backend, {**whole.table, base: wrong}, {base: whole.table[base]})
        for layer in plain:
            factor = sum(factor for factor, pool in backend.probe(layer).pools if pool == base)
            change_s = moved.get(layer, whole.table[layer]).median_s - whole.table[layer].median_s
            assert change_s == pytest.approx(-5e-6 * factor)
        assert strided in moved
    assert rebased(backend, whole.table, {}) == {}
