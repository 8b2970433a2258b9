"""Policies are measured in batches beside anchors, once each, and learned from: on times that are secret."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.documents import read_document, write_document
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.ort.runtime import OrtRuntime
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.rewrite_onnx import rewrite
from nas.tune.policies.random_policies import random_policies
from nas.tune.timing import batches as timing
from nas.tune.timing.batches import plan_effort
from nas.tune.timing.kernel_attribution import attribute
from nas.tune.timing.latency import PolicyTimer, learn, learn_latency
from nas.tune.timing.policy_times import PolicyTimes
from predictors.latency.policy_terms import PolicyTerms, Term
from tests.nas.emit.handmade import quantized
from tests.nas.tune.policies_of import (
    ORIGINAL_S,
    Engine,
    SecretTimes,
    SecretTransport,
    artifact_of,
    network,
    terms_of,
)


@pytest.fixture
def transport() -> SecretTransport:
    secret = SecretTimes.of(terms_of(network("conv")), np.random.default_rng(0))
    return SecretTransport(secret, np.random.default_rng(1))


def timer_of(transport: SecretTransport) -> PolicyTimer:
    device = MeasuredDevice(Engine(), transport, alone)  # type: ignore[arg-type]
    return PolicyTimer(device, transport.secret.terms, artifact_of, MeasurePlan(clock="wall"))


def test_policies_are_learned_and_judged_on_others(transport: SecretTransport) -> None:
    learned = learn_latency(timer_of(transport), budget_s=60.0, rng=np.random.default_rng(0))
    accuracy = learned.accuracy
    assert accuracy is not None
    assert accuracy.mape < 0.01
    assert accuracy.kendall_tau is not None
    assert accuracy.kendall_tau > 0.9
    tested = random_policies(
        transport.secret.terms.space, transport.secret.terms.model, 50, rng=np.random.default_rng(9)
    )
    errors = learned.predictor.seconds(tested) / transport.secret.true_s(tested) - 1
    assert np.abs(errors).mean() < 0.01
    assert learned.times.original_s == pytest.approx(ORIGINAL_S, rel=0.01)


def test_batches_that_others_slow_down_are_compared_by_their_anchors(
    transport: SecretTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MOST_OPEN", 11)
    transport.slowdowns = (1.0, 1.2, 1.0, 1.07, 1.0)
    times = learn_latency(timer_of(transport), budget_s=4.0, rng=np.random.default_rng(0)).times
    genomes, seconds = times.rows()
    assert max(transport.calls) == 11
    assert seconds == pytest.approx(transport.secret.true_s(genomes), rel=0.01)


def test_what_was_measured_is_not_measured_again(
    transport: SecretTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MOST_OPEN", 11)
    kept: list[PolicyTimes] = []
    timer = replace(timer_of(transport), save=kept.append)
    whole = learn_latency(timer, budget_s=4.0, rng=np.random.default_rng(0))
    write_document(tmp_path / "times.json", kept[1])
    stopped = read_document(tmp_path / "times.json", PolicyTimes)
    assert stopped == kept[1]
    calls = len(transport.calls)
    again = learn_latency(timer, budget_s=4.0, rng=np.random.default_rng(0), times=stopped)
    assert len(transport.calls) - calls == calls - len(stopped.batches)
    assert {p.genes for p in again.times.policies} == {p.genes for p in whole.times.policies}
    write_document(tmp_path / "times.json", whole.times)
    kept_whole = learn(read_document(tmp_path / "times.json", PolicyTimes), transport.secret.terms)
    genomes, _ = whole.times.rows()
    assert np.array_equal(kept_whole.seconds(genomes), whole.predictor.seconds(genomes))
    finished = len(transport.calls)
    learn_latency(timer, budget_s=4.0, rng=np.random.default_rng(0), times=whole.times)
    assert len(transport.calls) == finished


def test_two_policies_are_timed_as_the_anchors_that_they_are() -> None:
    secret = SecretTimes.of(terms_of(network("conv"), ("int8",), units=1), np.random.default_rng(0))
    transport = SecretTransport(secret, np.random.default_rng(1))
    learned = learn_latency(timer_of(transport), budget_s=4.0, rng=np.random.default_rng(0))
    genomes, seconds = learned.times.rows()
    assert sorted(map(tuple, genomes.tolist())) == [(0,), (1,)]
    assert learned.predictor.seconds(genomes) == pytest.approx(seconds, rel=0.02)
    assert learned.times.original_s == pytest.approx(ORIGINAL_S, rel=0.02)
    calls = len(transport.calls)
    learn_latency(timer_of(transport), budget_s=4.0, rng=np.random.default_rng(0), times=learned.times)
    assert len(transport.calls) == calls


def test_a_policy_that_no_engine_runs_is_a_row_with_the_reason(transport: SecretTransport) -> None:
    terms = transport.secret.terms
    genomes = random_policies(terms.space, terms.model, 20, rng=np.random.default_rng(0))
    timer = timer_of(transport)
    anchors = timer.anchors(rng=np.random.default_rng(1))
    transport.broken = tuple(genomes[3].tolist())
    times = PolicyTimes(terms.space.fingerprint, tuple(map(tuple, anchors.tolist())))
    times = timer.measure(times, genomes, timer.effort(anchors, 30.0))
    assert [policy.error for policy in times.policies if policy.seconds is None] == ["no kernel"]
    assert transport.broken not in set(map(tuple, times.rows()[0].tolist()))


def test_files_of_a_batch_fit_into_memory(transport: SecretTransport) -> None:
    anchors = (Artifact(b"x" * 1000),)
    emits = [lambda: Artifact(b"x" * 50_000_000)] * 100
    openable = timing._openable(emits, anchors)
    assert 1 < len(openable) < 20
    assert len(timing._openable([lambda: Artifact(bytes(2**30))] * 3, anchors)) == 1


def test_effort_follows_the_time_of_a_run() -> None:
    small, large, huge = (plan_effort(s, 0.05, 60.0, (24, 120)) for s in (1e-4, 18e-3, 1.0))
    assert small.policies == 120
    assert small.rounds == timing.ROUNDS[1]
    assert timing.ROUNDS[0] <= large.rounds < small.rounds
    assert large.estimated_s <= 60.0
    assert huge.policies == 24
    assert huge.estimated_s > 60.0  # said before it begins


def test_random_policies_differ_and_cover(transport: SecretTransport) -> None:
    terms = transport.secret.terms
    genomes = random_policies(terms.space, terms.model, 120, rng=np.random.default_rng(0))
    assert len({row.tobytes() for row in genomes}) == 120
    quantized_share = (genomes > 0).mean(axis=1)
    assert (quantized_share < 0.3).sum() > 10
    assert (quantized_share > 0.8).sum() > 10
    for column, choice in enumerate(terms.space.choices):
        assert set(genomes[:, column].tolist()) == set(range(len(choice.options)))
    possible = terms(terms.space.sample(3000, rng=np.random.default_rng(1))).any(axis=0)
    assert terms(genomes).any(axis=0)[possible].mean() > 0.9  # nearly every term can be told


def test_kernels_are_attributed_to_units_and_conversions() -> None:
    """By ONNX Runtime's own account of a real file; how long anything takes is of no matter."""
    model = network("conv")
    terms = terms_of(model, ("int8",))
    rng = np.random.default_rng(0)
    feeds = {each: rng.standard_normal(model.shapes[each], np.float32) for each in model.inputs}
    quantization = quantized(model, feeds, ("int8",))
    half = np.arange(len(terms.space.choices)) % 2
    for genome in (np.zeros_like(half), np.ones_like(half), half):
        check_attribution(terms, quantization, genome.astype(np.int16), feeds)


def check_attribution(terms: PolicyTerms, quantization, genome, feeds) -> None:  # type: ignore[no-untyped-def]
    policy = {c.name: "int8" for c, gene in zip(terms.space.choices, genome, strict=True) if gene}
    artifact = Artifact(rewrite(quantization, policy), example=feeds)
    kernels = OrtRuntime().kernel_times(artifact, runs=2)
    counted = [replace(kernel, seconds=1.0) for kernel in kernels]
    seconds = attribute(counted, terms, genome)
    assert sum(seconds.values()) >= 0.9 * len(kernels)
    runs_on = terms.kernels_of(genome)
    for unit in terms.space.columns:
        assert seconds[Term("unit", unit, runs_on[unit])] >= 1, unit
    present = {term for term, has in zip(terms.terms, terms(genome[None])[0], strict=True) if has}
    converting = [kernel for kernel in kernels if kernel.op in ("QuantizeLinear", "DequantizeLinear")]
    assert sum(seconds[term] for term in present if term.converts) >= len(converting)
    assert {term for term in seconds if term.converts} <= present
