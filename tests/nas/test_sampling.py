"""Which networks are evaluated next and when there are enough, on answers that are a formula."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.streams import Stream, open_stream
from nas.run.config import SampleSection
from nas.sampling.sampling import BATCH, FEWEST, STRATEGIES, Samples, Sampling, SamplingGroup, sample
from nas.search.pareto import non_dominated
from nas.stages.sample import vary_share
from predictors.design.surrogate import embed, learn_kernel, posterior_mean
from predictors.table import compile_table
from supernet.families.family import load_family
from supernet.space.space import Genomes, in_fp32, row_keys

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = FAMILY.space()
COSTS = compile_table(SPACE, FAMILY.terms(), [macs, params])
PRECISION = [column for column, choice in enumerate(SPACE.choices) if choice.kind == "precision"]
CORNERS = np.array([corner.genes for corner in FAMILY.extremes().values()], np.int16)


@pytest.fixture(autouse=True)
def _few_are_considered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as these small samples need."""
    monkeypatch.setattr("nas.sampling.sampling.CONSIDERED", 150)
    monkeypatch.setattr("nas.sampling.sampling.FRONT_BUDGET", 1_000)


def accuracy(genomes: Genomes) -> np.ndarray:
    """Saturates with work, and every quantized layer costs a little: nothing is random."""
    work = COSTS(SPACE.canonical(genomes))[:, 0]
    return 1 - np.exp(-((work / 1e5) ** 0.5)) - 0.002 * (genomes[:, PRECISION] > 0).sum(axis=1)


def noise(genomes: Genomes) -> np.ndarray:
    """Nothing can be learned of this, and it is the same every time."""
    return np.array([np.random.default_rng(genome.astype(np.int64)).normal() for genome in genomes])


def plain(n: int, *, rng: np.random.Generator) -> Genomes:
    return in_fp32(SPACE, SPACE.sample(n, rng=rng))


def mixed(n: int, *, rng: np.random.Generator) -> Genomes:
    return vary_share(SPACE, SPACE.sample(n, rng=rng), rng=rng)


def setting(strategy: str, fp32: int | None = 50, quantized: int | None = 30, seed: int = 0) -> Sampling:
    return Sampling(
        strategy,
        embed(SPACE, COSTS, rng=np.random.default_rng(0)),
        CORNERS,
        (
            SamplingGroup("fp32", plain, partial(in_fp32, SPACE), fp32, 200),
            SamplingGroup("quantized", mixed, SPACE.canonical, quantized, 140),
        ),
        lambda genomes: COSTS(SPACE.canonical(genomes))[:, 0],
        seed,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_what_was_asked_for(strategy: str) -> None:
    samples = sample(setting(strategy), accuracy)
    assert len(np.unique(row_keys(samples.genomes))) == len(samples.genomes) == len(CORNERS) + 80
    np.testing.assert_array_equal(samples.genomes[: len(CORNERS)], CORNERS)
    np.testing.assert_array_equal(samples.genomes, SPACE.canonical(samples.genomes))
    np.testing.assert_array_equal(samples.answers, accuracy(samples.genomes))
    fp32 = (samples.genomes[:, PRECISION] == 0).all(axis=1)
    assert fp32[len(CORNERS) : len(CORNERS) + 50].all()
    assert [(one.name, one.n, one.why) for one in samples.decisions] == [
        ("fp32", 50, "as many as were asked for"),
        ("quantized", 30, "as many as were asked for"),
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_stopped_anywhere_and_asked_again_it_goes_the_same_way(strategy: str) -> None:
    whole, store = sample(setting(strategy, 40, 20), accuracy), dict[bytes, float]()

    def evaluate(genomes: Genomes, patience: int) -> np.ndarray:
        """Answers from the store and, `patience` times, new ones."""
        for genome, value in zip(genomes, accuracy(genomes), strict=True):
            if genome.tobytes() not in store:
                patience -= 1
                if patience < 0:
                    raise KeyboardInterrupt
                store[genome.tobytes()] = value
        return np.array([store[genome.tobytes()] for genome in genomes])

    with pytest.raises(KeyboardInterrupt):
        sample(setting(strategy, 40, 20), partial(evaluate, patience=15))
    again = sample(setting(strategy, 40, 20), partial(evaluate, patience=100))
    np.testing.assert_array_equal(again.genomes, whole.genomes)
    assert again.decisions == whole.decisions
    assert len(store) == len(whole.genomes)


def test_seeds_give_different_samples() -> None:
    one, other = (sample(setting("diverse", seed=seed), accuracy).genomes for seed in (0, 1))
    assert np.isin(row_keys(one), row_keys(other)).mean() < 0.5


def test_random_is_drawn_in_one_piece() -> None:
    samples = sample(setting("random", fp32=45, quantized=0), accuracy)
    drawn = plain(45, rng=open_stream(0, Stream.SAMPLES))
    np.testing.assert_array_equal(samples.genomes[len(CORNERS) :], drawn)


def held_out_error(samples: Samples, embedding_of: Sampling) -> float:
    rng = np.random.default_rng(9)
    asked = SPACE.sample(500, rng=rng)
    known, points = embedding_of.embedding(samples.genomes), embedding_of.embedding(asked)
    kernel = learn_kernel(known, samples.answers, rng=rng)
    error = posterior_mean(kernel, known, samples.answers, points) - accuracy(asked)
    return float(np.sqrt(np.mean(error**2)))


def test_chosen_samples_teach_more_than_random_ones() -> None:
    errors = {
        strategy: np.mean(
            [
                held_out_error(sample(one, accuracy), one)
                for one in (setting(strategy, 20, 20, seed) for seed in range(2))
            ]
        )
        for strategy in ("random", "diverse", "uncertainty")
    }
    assert errors["diverse"] < errors["random"]
    assert errors["uncertainty"] < errors["random"]


def test_front_looks_where_accuracy_costs_least() -> None:
    chosen = [sample(setting(name, 0, 60), accuracy).genomes for name in ("front", "uncertainty")]
    genomes = np.concatenate(chosen)
    best = non_dominated(np.stack([-accuracy(genomes), COSTS(genomes)[:, 0]], axis=1))
    of_front, of_other = best[: len(chosen[0])].sum(), best[len(chosen[0]) :].sum()
    assert of_front > 1.3 * of_other


def test_what_cannot_run_is_never_taken_for_the_front() -> None:
    depth = SPACE.columns["s0.b0.kernel"]

    def cost(genomes: Genomes) -> np.ndarray:
        return np.where(genomes[:, depth] > 0, np.inf, COSTS(SPACE.canonical(genomes))[:, 0])

    picky = replace(setting("front", 40, 0), cost=cost)
    usual = sample(setting("front", 40, 0), accuracy).genomes[:, depth] > 0
    assert (sample(picky, accuracy).genomes[:, depth] > 0).mean() < usual.mean()


def test_easy_answers_stop_early_and_say_why() -> None:
    samples = sample(setting("diverse", None, 0), accuracy)
    fp32 = samples.decisions[0]
    assert FEWEST <= fp32.n < 200
    assert fp32.gain is not None
    assert fp32.gain < 0.003
    assert f"the next {BATCH} promise" in fp32.why
    assert fp32.curve[-1].kendall_tau > 0.9
    assert fp32.curve[-1].rmse < fp32.curve[0].rmse
    assert len(samples.genomes) == len(CORNERS) + fp32.n


def test_a_curve_that_still_rises_goes_on_to_the_most() -> None:
    rough = sample(
        setting("random", None, 0), lambda genomes: accuracy(genomes) + 0.05 * noise(genomes)
    ).decisions[0]
    easy = sample(setting("random", None, 0), accuracy).decisions[0]
    assert rough.n > easy.n


def test_unknown_strategies_and_negative_counts_are_refused() -> None:
    with pytest.raises(
        TrilobitError, match=r"sample\.strategy must be one of random, diverse, .*, got 'best'"
    ):
        SampleSection(strategy="best")
    with pytest.raises(
        TrilobitError, match=r"sample\.quantized must be a whole number from 0 to [0-9,]+, got -1"
    ):
        SampleSection(quantized=-1)
