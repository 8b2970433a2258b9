"""The time of any policy, from a few measured ones: on times that are secret sums, and nothing is timed."""

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.emit.instructions import instructions
from nas.tune.policies.random_policies import random_policies
from predictors.latency.policies import PolicyLatency
from predictors.latency.policy_priors import prior_of_kernels, prior_of_work
from predictors.latency.policy_terms import CALLER, IN_REALS, PolicyTerms, Term
from supernet.space.space import Genomes
from tests.nas.emit.handmade import quantized
from tests.nas.tune.policies_of import ORIGINAL_S, SecretTimes, network, terms_of

NETWORKS = ("conv", "attention")


def drawn(terms: PolicyTerms, n: int, seed: int = 0) -> Genomes:
    return random_policies(terms.space, terms.model, n, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_terms_are_the_conversions_that_the_file_has(name: str) -> None:
    model = network(name)
    terms = terms_of(model, ("int8", "int4"))
    rng = np.random.default_rng(0)
    feeds = {each: rng.standard_normal(model.shapes[each], np.float32) for each in model.inputs}
    quantization = quantized(model, feeds, ("int8", "int4"))
    genomes = drawn(terms, 40)
    for genome, present in zip(genomes, terms(genomes), strict=True):
        policy = {
            choice.name: str(choice.options[gene])
            for choice, gene in zip(terms.space.choices, genome.tolist(), strict=True)
            if gene
        }
        plan = instructions(quantization, policy)
        given = {each.tensor for each in plan.quantize if each.given}
        expected = {Term("quantize", each.tensor) for each in plan.quantize if not each.given}
        expected |= {
            Term("dequantize", each.tensor, each.reader)
            for each in plan.dequantize
            if each.tensor in given and (each.reader == CALLER or each.reader not in plan.integer)
        }
        named = {term for term, has in zip(terms.terms, present, strict=True) if has}
        assert {term for term in named if term.converts} == expected
        integer = {unit for unit, kernel in terms.kernels_of(genome).items() if kernel == "integers"}
        assert integer == plan.integer == {term.name for term in named if not term.converts}


@pytest.mark.parametrize("name", NETWORKS)
def test_secret_terms_are_found_out(name: str) -> None:
    rng = np.random.default_rng(1)
    secret = SecretTimes.of(terms_of(network(name)), rng)
    learned, tested = drawn(secret.terms, 60, 2), drawn(secret.terms, 200, 3)
    fitted = secret.predictor().fit(learned, secret.measured_s(learned, rng))
    true_s, predicted = secret.true_s(tested), fitted.predict(tested)
    errors = predicted.mean / true_s - 1
    spread = true_s.std() / true_s.mean()
    assert np.abs(errors).mean() < min(0.01, 0.1 * spread)
    assert np.mean(np.abs(predicted.mean - true_s) <= 1.645 * predicted.std) > 0.8
    untold = secret.predictor().fit(learned[:1], secret.true_s(learned[:1])).seconds(tested) / true_s - 1
    assert np.abs(errors).mean() < 0.4 * np.abs(untold).mean()
    assert np.array_equal(fitted.seconds(tested), predicted.mean)


def test_formats_on_the_same_kernels_share_their_time() -> None:
    rng = np.random.default_rng(0)
    secret = SecretTimes.of(terms_of(network("conv")), rng)
    learned = drawn(secret.terms, 40)
    only_int8 = learned[(learned != 2).all(axis=1)]
    fitted = secret.predictor().fit(only_int8, secret.measured_s(only_int8, rng))
    assert np.array_equal(fitted.seconds(np.where(learned == 2, 1, learned)), fitted.seconds(learned))
    assert secret.terms.terms.count(Term("unit", secret.terms.space.choices[0].name, "integers")) == 1


def test_a_far_off_prior_is_overcome() -> None:
    rng = np.random.default_rng(4)
    terms = terms_of(network("conv"))
    secret = SecretTimes.of(terms, rng, off=0.2)
    learned, tested = drawn(terms, 80, 5), drawn(terms, 100, 6)
    wrong = PolicyLatency(terms, prior_of_work(terms, 4 * ORIGINAL_S))
    predicted = wrong.fit(learned, secret.measured_s(learned, rng)).seconds(tested)
    assert np.abs(predicted / secret.true_s(tested) - 1).mean() < 0.01


def test_times_of_kernels_say_what_to_expect_and_others_of_their_kind_what_was_not_seen() -> None:
    terms = terms_of(network("conv"), ("int8",))
    secret = SecretTimes.of(terms, np.random.default_rng(0))
    whole = {term: s for term, s in zip(terms.terms, secret.seconds.tolist(), strict=True)}
    base = {Term("unit", unit.name, IN_REALS.name): 1e-3 for unit in terms.model.units}
    observed = base | {term: s if term.converts else 1e-3 + s for term, s in whole.items()}
    unseen = next(term for term in terms.terms if term.kind == "quantize")
    prior = prior_of_kernels(terms, [{t: s for t, s in observed.items() if t != unseen}], ORIGINAL_S)
    seen = np.array([term != unseen for term in terms.terms])
    assert prior.mean_s[seen] == pytest.approx(secret.seconds[seen])
    assert prior.mean_s[~seen] > 0
    assert np.isfinite(prior.scale_s).all()
    assert (prior.scale_s > 0).all()


def test_little_to_choose_from() -> None:
    """No unit, one unit, one measured policy, times that are all equal."""
    model = network("conv")
    nothing = SecretTimes.of(terms_of(model, units=0), np.random.default_rng(0))
    genomes = drawn(nothing.terms, 5)
    assert genomes.shape == (1, 0)
    assert nothing.predictor().fit(genomes, np.array([2e-3])).seconds(genomes) == pytest.approx(2e-3)
    single = SecretTimes.of(terms_of(model, units=1), np.random.default_rng(0))
    genomes = drawn(single.terms, 20)
    assert len(genomes) == 4  # all that there are
    fitted = single.predictor().fit(genomes, single.true_s(genomes))
    assert fitted.seconds(genomes) == pytest.approx(single.true_s(genomes), rel=0.01)
    equal = single.predictor().fit(genomes, np.full(4, 3e-3))
    assert equal.seconds(genomes) == pytest.approx(3e-3, rel=0.05)
    assert (equal.predict(genomes).std > 0).all()


def test_what_cannot_be_fitted_or_was_not() -> None:
    predictor = SecretTimes.of(terms_of(network("conv")), np.random.default_rng(0)).predictor()
    genomes = drawn(predictor.terms, 3)
    for times in (np.array([1e-3, np.nan, 1e-3]), np.zeros(0)):
        with pytest.raises(TrilobitError, match="measured policies; wanted some"):
            predictor.fit(genomes[: len(times)], times)
    with pytest.raises(TrilobitError, match="not fitted"):
        predictor.predict(genomes)
