"""Priors of other tasks: of use where they rank well, harmless where they do not."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from predictors.accuracy.ridge import RidgePredictor
from predictors.accuracy.warm_start import (
    AffinePrior,
    WarmStart,
    fit_line,
    line_leave_one_out,
    map_genomes,
    warm,
)
from predictors.assessment.conformal import coverage
from predictors.predictor import FEWEST, MakePredictor, load_predictor
from predictors.table import CostTable, compile_table
from supernet.families.family import load_family
from supernet.space.space import Choice, Genomes, SearchSpace

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = FAMILY.space()
COSTS = compile_table(SPACE, FAMILY.terms(), [macs, params])
EFFECTS = np.random.default_rng(0).normal(size=(2, len(SPACE.choices)))


def known_task(genomes: Genomes) -> np.ndarray:
    """Of every gene, and of two genes together: nothing that a line could learn from few rows."""
    genomes = SPACE.canonical(genomes)
    return genomes @ EFFECTS[0] + 0.7 * (genomes[:, 1:] * genomes[:, :-1]) @ EFFECTS[1, 1:]


def new_task(genomes: Genomes) -> np.ndarray:
    """A warped scale of the same, and a little of its own."""
    return 0.5 + np.tanh(known_task(genomes) / 40) + 0.01 * genomes[:, 0]


def upside_down(genomes: Genomes) -> np.ndarray:
    return -known_task(genomes)


def nonsense(genomes: Genomes) -> np.ndarray:
    return np.random.default_rng(5).normal(size=len(genomes))


def rows(n: int, seed: int) -> tuple[Genomes, np.ndarray]:
    genomes = SPACE.sample(n, rng=np.random.default_rng(seed))
    return genomes, new_task(genomes)


def tau_of(make: partial[WarmStart] | type[RidgePredictor], n: int, seed: int = 0) -> float:
    predictor = make(SPACE, seed=seed, costs=COSTS).fit(*rows(n, seed))
    asked, truth = rows(400, 99)
    return float(kendalltau(predictor.predict(asked).mean, truth).statistic)


def test_ten_rows_and_a_good_prior_rank_better_than_forty_rows() -> None:
    helped = partial(WarmStart, make=RidgePredictor, prior=known_task)
    assert tau_of(helped, 10) > 0.85 > tau_of(RidgePredictor, 40)


@pytest.mark.parametrize("prior", [upside_down, nonsense])
def test_a_bad_prior_costs_nothing(prior) -> None:
    helped = partial(WarmStart, make=RidgePredictor, prior=prior)
    for seed in (0, 1):
        assert tau_of(helped, 60, seed) > tau_of(RidgePredictor, 60, seed) - 0.03


def test_left_alone_it_is_the_predictor_itself() -> None:
    genomes, targets = rows(60, 0)
    fitted = warm(RidgePredictor, upside_down)(SPACE, seed=0, costs=COSTS).fit(genomes, targets)
    assert isinstance(fitted, WarmStart)
    assert fitted.fitted is not None
    assert list(fitted.fitted.members) == ["predictor"]
    plain = RidgePredictor(SPACE, seed=0, costs=COSTS).fit(genomes, targets)
    np.testing.assert_allclose(fitted.predict(genomes).mean, plain.predict(genomes).mean, rtol=1e-9)


def rmse_of(make: MakePredictor, learned: Genomes, asked: Genomes) -> float:
    predictor = make(SPACE, seed=0, costs=COSTS).fit(learned, new_task(learned))
    return float(np.sqrt(np.mean((predictor.predict(asked).mean - new_task(asked)) ** 2)))


def best(n: int, seed: int) -> Genomes:
    """Networks as a search samples them: better, by the prior, than all but a few of a thousand."""
    pool = SPACE.sample(20 * n, rng=np.random.default_rng(seed))
    return pool[np.argsort(known_task(pool))[-n:]]


def affine(space: SearchSpace, *, seed: int, costs: CostTable | None = None) -> AffinePrior:
    """As predictors are made."""
    return AffinePrior(known_task)


@pytest.mark.parametrize("n", [10, 40])
def test_no_worse_than_an_affine_map_of_the_prior(n: int) -> None:
    """On rows near the front, where ranks among random networks tell nothing apart any more."""
    errors = np.array(
        [
            [
                rmse_of(make, best(n, seed), best(150, 77))
                for make in (warm(RidgePredictor, known_task), affine)
            ]
            for seed in range(6)
        ]
    )
    ours, plain = np.sqrt((errors**2).mean(axis=0))
    assert ours <= 1.05 * plain
    if n == 40:
        alone = rmse_of(RidgePredictor, best(n, 0), best(150, 77))
        assert ours < 0.9 * alone


def test_whatever_the_unit_of_the_prior() -> None:
    genomes, targets = rows(20, 0)
    asked, _ = rows(50, 1)
    plain, scaled = (
        warm(RidgePredictor, prior)(SPACE, seed=0, costs=COSTS).fit(genomes, targets).predict(asked)
        for prior in (known_task, lambda genomes: 1e-9 * known_task(genomes) + 1e-6)
    )
    np.testing.assert_allclose(plain.mean, scaled.mean)
    np.testing.assert_allclose(plain.std, scaled.std, rtol=1e-6)
    assert (plain.std > 0).all()


def test_with_the_fewest_rows_the_prior_stands_alone() -> None:
    genomes, targets = rows(FEWEST, 0)
    asked, truth = rows(50, 1)
    fitted = warm(RidgePredictor, known_task)(SPACE, seed=0, costs=COSTS).fit(genomes, targets)
    assert kendalltau(fitted.predict(asked).mean, truth).statistic > 0.9


def test_intervals_hold_what_they_say() -> None:
    asked, truth = rows(400, 99)
    inside = []
    for seed in range(5):
        learned = rows(40, seed)
        found = warm(RidgePredictor, known_task)(SPACE, seed=seed, costs=COSTS).fit(*learned).predict(asked)
        inside.append(coverage(found.mean - truth, found.std))
    assert 0.83 < np.mean(inside) < 0.98


def test_a_line_leaves_each_row_out() -> None:
    values, targets = np.random.default_rng(0).normal(size=(2, 12))
    targets += values
    found = line_leave_one_out(values, targets)
    slope, intercept = np.polyfit(values[1:], targets[1:], 1)
    assert found[0] == pytest.approx(slope * values[0] + intercept)


def test_not_fitted_is_said() -> None:
    with pytest.raises(TrilobitError, match="WarmStart is not fitted"):
        warm(load_predictor("ridge"), known_task)(SPACE, seed=0).predict(rows(3, 0)[0])


def test_lines_never_fall() -> None:
    scores = np.linspace(-1, 1, 9)
    assert fit_line(scores, 3 * scores + 2) == pytest.approx((3, 2))
    assert fit_line(scores, 2 - scores) == pytest.approx((0, 2))


# -- between spaces --------------------------------------------------------------------------------


def test_the_same_space_maps_to_itself() -> None:
    genomes = SPACE.sample(50, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(map_genomes(SPACE, SPACE)(genomes), genomes)


def test_choices_map_by_name_and_options_by_value_or_place() -> None:
    source = SearchSpace(
        "wide",
        (
            Choice("s0.depth", (1, 2, 3)),
            Choice("s0.b0.expand", (16, 32, 48), "pruning"),
            Choice("s0.b0.kernel", (3, 5, 7)),
            Choice("extra", ("a", "b", "c")),
        ),
    )
    target = SearchSpace(
        "narrow", (Choice("s0.b0.kernel", (3, 7)), Choice("s0.b0.expand", (4, 8, 12, 24, 32), "pruning"))
    )
    mapped = map_genomes(target, source)(np.array([[0, 0], [1, 4], [1, 2]], np.int16))
    np.testing.assert_array_equal(mapped, [[1, 0, 0, 1], [1, 1, 2, 1], [1, 1, 2, 1]])


def test_spaces_of_another_build_are_refused() -> None:
    other = SearchSpace("words", (Choice("layers", (1, 2)),))
    with pytest.raises(TrilobitError, match=r"words is no prior for digits-mbconv: 0 of \d+ choices"):
        map_genomes(SPACE, other)
