"""The estimate covers every stage, the waiting too, and is corrected while the run goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.batches import probe_networks, reference_network
from hw_profiles.profiles.profile_json import save_profile
from hw_profiles.profiles.whole_networks import TRUTH
from hw_profiles.runtimes.runtime import Job
from nas.run.config import RunConfig, SpaceSection
from nas.run.reporting import QUIET
from nas.run.run import STAGES, Run
from nas.stages import estimates
from nas.stages.estimates import FIT_S, Estimate, estimate
from nas.stages.preflight import LEFT_OUT, _time, preflight
from nas.stages.profile import FITTED, HELD_OUT, estimate_batches, start_profile
from nas.stages.sample import most_samples
from predictors.table import distinct_layers
from tests.hw_profiles.restless import RestlessBackend


@dataclass
class Clock:
    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


@dataclass
class SlowBackend(RestlessBackend):
    """A second for every network."""

    clock: Clock = None  # type: ignore[assignment]
    quiet_share: float = 1.0

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        assert plan.waiting_s == 0.0
        self.clock.now += len(jobs)
        return [Measurement((1e-4,) * plan.rounds, quiet_share=self.quiet_share) for _ in jobs]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The default run, on a made-up device; training and evaluating take a second each."""
    config = replace(RunConfig(), space=SpaceSection(formats=("fp32", "int8")))
    made, clock = Run(tmp_path, config), Clock()
    made.__dict__["device"] = SlowBackend(None, lambda layer: 0.0, clock=clock)  # type: ignore[arg-type]
    monkeypatch.setattr(estimates, "time", clock)
    for name in ("_train_seconds", "_quantized_seconds"):
        monkeypatch.setattr(estimates, name, lambda run: 1.0)
    monkeypatch.setattr(estimates, "_evaluation_seconds", lambda run: (1.0, 2.0))
    return made


def test_every_stage_that_measures_or_computes_is_estimated(run: Run) -> None:
    found = estimate(run)
    assert {stage for stage in STAGES if found.seconds[stage] == 0} == {"report"}
    layers = distinct_layers(run.family.space(), run.family.terms())
    units = probe_networks(run.device, estimate_batches(run, layers), reference_network(run.device, layers))
    assert found.seconds["profile"] == pytest.approx(units + TRUTH * 3 * (FITTED + HELD_OUT))
    assert found.seconds["fit"] >= 5 * FIT_S
    finalists = run.config.search.rounds * run.config.search.finalists
    assert found.seconds["sample"] == most_samples(run)
    assert found.seconds["search"] > finalists * (2 + TRUTH)
    assert found.waiting_s == 0.0


def test_samples_on_fewer_images_take_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first network takes to start is no part of what each takes."""
    clock, first = Clock(), [100.0]
    monkeypatch.setattr(estimates, "time", clock)

    def build(*arguments: object, **options: object) -> None:
        clock.now += 1.0 + (first.pop() if first else 0.0)

    def score(network: object, examples: Sequence[object], task: object) -> None:
        clock.now += 0.01 * len(examples)

    monkeypatch.setattr(estimates, "build_network", build)
    monkeypatch.setattr(estimates, "simulated_metric", score)
    run = Run(tmp_path, replace(RunConfig(), sample=replace(RunConfig().sample, images=50)))
    run.__dict__["device"] = RestlessBackend(None, lambda layer: 0.0)  # type: ignore[arg-type]
    sampled, evaluated = estimates._evaluation_seconds(run)
    assert sampled == pytest.approx(1.5)
    assert evaluated == pytest.approx(1 + 0.01 * len(run.task.validation))


def test_a_profile_that_was_interrupted_is_gone_on_with(run: Run) -> None:
    """Its file lacks rows yet: limits are about so, as before the first one was measured."""
    device, config = run.device, replace(run.config, measure=replace(run.config.measure, waiting_s=0.0))
    run = Run(run.folder, config)
    run.__dict__["device"] = device
    layers = distinct_layers(run.family.space(), run.family.terms())
    some = replace(start_profile(run), table={layers[0]: Measurement((1e-4,) * run.plan.rounds)})
    run.profile_path.parent.mkdir(parents=True)
    save_profile(some, run.profile_path)
    assert preflight(run, QUIET).time.seconds["profile"] > 0


def test_a_restless_machine_adds_what_may_be_waited(run: Run) -> None:
    run.device.quiet_share = 0.2  # type: ignore[attr-defined]
    found = estimate(run)
    assert found.waiting_s == 3 * run.plan.waiting_s
    assert found.total_s == sum(found.seconds.values()) + found.waiting_s


def test_what_is_left_is_corrected_by_what_was_off_so_far() -> None:
    found = Estimate({"profile": 30.0, "train": 100.0, "sample": 50.0, "search": 20.0})
    assert found.left_s({}) == 200.0
    assert found.left_s({"profile": 30.0}) == 170.0
    assert found.left_s({"profile": 60.0}) == 100.0 + 50.0 + 2 * 20.0  # training is no measuring
    assert found.left_s({"profile": 30.0, "train": 300.0}) == 3 * 50.0 + 20.0
    assert found.left_s({"profile": 3000.0}) == 150.0 + 20.0 * estimates.CORRECTION[1]
    assert found.left_s(dict.fromkeys(found.seconds, 1.0)) == 0.0


def test_waiting_is_a_part_of_each_stage_that_measures() -> None:
    found = Estimate({"profile": 10.0, "train": 100.0, "search": 20.0}, waiting_s=80.0)
    assert found.left_s({}) == found.total_s == 210.0
    assert found.left_s({"profile": 50.0}) == 100.0 + 60.0
    assert found.left_s({"profile": 25.0}) == 100.0 + 30.0


def test_the_line_says_what_it_counts_and_what_not() -> None:
    line = _time(Estimate({"profile": 29.4, "train": 150.0, "fit": 20.0}, waiting_s=120.0))
    assert line.startswith(
        "estimated time: 5 min (profile 29 s, train 2 min, fit 20 s, waiting for a quiet machine"
    )
    assert line.endswith(f"not counted: {LEFT_OUT}")
    assert _time(Estimate({"profile": 0.0})) == "estimated time: everything is there"
