"""`LatencyPredictor`, its process, and its transfer between devices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from hw_profiles.errors import TrilobitError
from predictors.accuracy.ridge import RidgePredictor
from predictors.assessment.conformal import coverage
from predictors.latency.components import LEARNED_ON, Variances, condition, fit_process
from predictors.latency.device_transfer import choose_networks, fit_sources
from predictors.latency.networks import LatencyPredictor, Noise, describe, evidence
from supernet.space.space import Choice, Genomes, SearchSpace
from tests.published_data import DataFile

OPS = ("none", "skip", "one", "three", "pool")
SPACE = SearchSpace("cell", tuple(Choice(f"e{i}.op", OPS) for i in range(8)))
COST = np.array([0.0, 0.1, 1.0, 3.0, 0.6])  # of an option, wherever it stands


def networks(n: int, seed: int = 0) -> Genomes:
    return SPACE.sample(n, rng=np.random.default_rng(seed))


def seconds(genomes: Genomes, options: np.ndarray = COST, seed: int = 9) -> np.ndarray:
    """Additive, with 2 % noise."""
    noise = np.random.default_rng(seed).normal(0, 0.02, len(genomes))
    return np.asarray(1e-3 * (2 + options[genomes].sum(axis=1)) * (1 + noise))


# -- the process -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grams() -> np.ndarray:
    x, other = np.random.default_rng(0).normal(size=(2, 30, 6))
    return np.array([x @ x.T, other @ other.T])


def test_left_out_errors_are_those_of_leaving_rows_out(grams: np.ndarray) -> None:
    targets, variances = np.random.default_rng(1).normal(size=30), Variances(np.array([0.7, 0.2]), 0.3)
    weights = np.random.default_rng(2).uniform(0.5, 2, 30)
    errors, spread = condition(grams, targets, variances, weights).leave_one_out()
    kept = np.arange(1, 30)
    rest = condition(grams[:, 1:, 1:], targets[1:], variances, weights[1:])
    across = variances.parts @ grams[:, 0, kept] + 10.0
    assert errors[0] == pytest.approx(targets[0] - across @ rest.alpha)
    own = variances.parts @ grams[:, 0, 0] + 10.0 - across @ rest.precision @ across
    assert spread[0] ** 2 == pytest.approx(own + variances.noise * weights[0])


def test_variances_are_learned(grams: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    targets = np.linalg.cholesky(grams[1] + 1e-9 * np.eye(30)) @ rng.normal(size=30)
    targets = targets / targets.std() + 0.01 * rng.normal(size=30)
    expected = Variances(np.array([1.0, 1.0]), 0.1)
    found = fit_process(grams, targets, expected, np.ones(30))
    assert found.variances.parts[1] > 3 * found.variances.parts[0]
    assert found.variances.noise < 0.03
    assert (
        found.negative_log_evidence < condition(grams, targets, expected, np.ones(30)).negative_log_evidence
    )


# -- alone -----------------------------------------------------------------------------------------


def test_an_option_costs_alike_wherever_it_stands() -> None:
    genomes, new = networks(12), networks(500, seed=1)
    truth = seconds(new)
    tied = LatencyPredictor(SPACE).fit(genomes, seconds(genomes)).predict(new).mean
    alone = RidgePredictor(SPACE, seed=0).fit(genomes, seconds(genomes)).predict(new).mean
    assert spearmanr(tied, truth).statistic > 0.97 > 0.8 > spearmanr(alone, truth).statistic


def test_what_stands_alone_is_learned_too() -> None:
    genomes, new = networks(150), networks(500, seed=1)
    own = np.random.default_rng(5).uniform(0, 3, (8, len(OPS)))

    def truth(rows: Genomes) -> np.ndarray:
        return np.asarray(own[np.arange(8), rows].sum(axis=1))

    found = LatencyPredictor(SPACE).fit(genomes, truth(genomes)).predict(new)
    assert spearmanr(found.mean, truth(new)).statistic > 0.99


def test_more_rows_than_are_learned_on() -> None:
    genomes, new = networks(LEARNED_ON + 50), networks(100, seed=1)
    found = LatencyPredictor(SPACE).fit(genomes, seconds(genomes)).predict(new)
    assert spearmanr(found.mean, seconds(new)).statistic > 0.98


def test_a_row_far_off_all_others_counts_for_little() -> None:
    genomes, new = networks(30), networks(300, seed=1)
    disturbed = seconds(genomes)
    disturbed[3] *= 3
    error = np.abs(LatencyPredictor(SPACE).fit(genomes, disturbed).predict(new).mean / seconds(new) - 1)
    assert np.median(error) < 0.03


def test_noise_rises_between_the_fastest_and_the_slowest() -> None:
    assert_allclose(Noise(1.0, 3.0, 3.0)(np.array([0.0, 1.0, 2.0, 3.0])), [1, 1, 6.25, 16])
    assert_allclose(Noise(1.0, 1.0, 0.0)(np.array([0.0, 5.0])), 1.0)


def test_the_reading_that_a_device_goes_by_surprises_less() -> None:
    """The first choice switches the others off on one device; the other pays for them all the same."""
    rest = tuple(Choice(f"b{i}", OPS, "architecture", (("on", ("yes",)),)) for i in range(6))
    switched = SearchSpace("switched", (Choice("on", ("no", "yes")), *rest))
    plain = SearchSpace("plain", (switched.choices[0], *(Choice(one.name, OPS) for one in rest)))
    genomes = plain.sample(40, rng=np.random.default_rng(0))
    for space, other in ((switched, plain), (plain, switched)):
        targets = seconds(space.canonical(genomes)[:, 1:])
        fits = [LatencyPredictor(one).fit(genomes, targets) for one in (space, other)]
        assert fits[0].negative_log_evidence < fits[1].negative_log_evidence
    with pytest.raises(TrilobitError, match="not fitted"):
        _ = LatencyPredictor(plain).negative_log_evidence


def test_parts_are_of_equal_size() -> None:
    genomes = networks(40)
    description = describe(SPACE, None, None, genomes)
    x = description(genomes)
    grams = description.grams(x, x)
    assert_allclose(np.trace(grams, axis1=1, axis2=2) / 40, 1.0)
    total = np.tensordot(description.expected, grams, 1) + 10.0
    assert_allclose(description.own(x, description.expected), np.diag(total))


def test_twenty_measured_networks_rank_a_phone(data_file: DataFile) -> None:
    data = np.load(data_file("latency/nb201.npz"))
    genomes, names = data["ops"].astype(np.int16), tuple(data["op_names"].tolist())
    space = SearchSpace("nb201", tuple(Choice(edge, names) for edge in data["edges"].tolist()))
    ms = data["lat"][:, data["lat_devices"].tolist().index("samsung_a50")].astype(float)
    order = np.random.default_rng(0).permutation(len(ms))
    train, test = order[:20], order[20:3000]
    found = LatencyPredictor(space).fit(genomes[train], ms[train]).predict(genomes[test])
    assert spearmanr(found.mean, ms[test]).statistic > 0.95  # ridge on one-hot: .815


# -- seconds or their logarithm ------------------------------------------------------------------------------


def multiplied(genomes: Genomes, seed: int = 9) -> np.ndarray:
    """What an option costs is a share of the rest: over two decades, with 3 % noise."""
    effects = np.random.default_rng(5).normal(0, 0.5, (8, len(OPS)))
    noise = np.random.default_rng(seed).normal(0, 0.03, len(genomes))
    return np.asarray(np.exp(effects[np.arange(8), genomes].sum(axis=1) + noise - 7))


def test_where_effects_multiply_logarithms_are_taken() -> None:
    genomes, new = networks(60), networks(300, seed=1)
    fitted = LatencyPredictor(SPACE).fit(genomes, multiplied(genomes))
    assert fitted.fitted is not None
    assert fitted.fitted.description.logs
    truth = multiplied(new, seed=3)
    assert np.mean(np.abs(fitted.predict(new).mean / truth - 1)) < 0.1  # .3 in seconds
    inside = []
    for seed in range(4):
        learned = networks(60, seed + 10)
        found = LatencyPredictor(SPACE).fit(learned, multiplied(learned, seed)).predict(new)
        inside.append(coverage(found.mean - truth, found.std))
    assert 0.83 < np.mean(inside) < 0.97


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1e-6, 1.0, 1e6]))
def test_where_effects_add_up_seconds_are_taken_in_any_unit(seed: int, factor: float) -> None:
    genomes = networks(40, seed)
    added, shares = (
        LatencyPredictor(SPACE).fit(genomes, factor * targets)
        for targets in (seconds(genomes, seed=seed), multiplied(genomes))
    )
    assert added.fitted is not None
    assert shares.fitted is not None
    assert not added.fitted.description.logs
    assert shares.fitted.description.logs


def test_targets_that_may_be_negative_have_no_logarithm() -> None:
    genomes = networks(40)
    found = LatencyPredictor(SPACE).fit(genomes, multiplied(genomes) - 1e-3).fitted
    assert found is not None
    assert not found.description.logs


def test_the_surprise_is_that_of_a_density_per_second() -> None:
    """So that descriptions, scales and units compare: in microseconds it is n log(1e6) larger."""
    genomes = networks(40)
    for truth in (seconds, multiplied):
        one, million = (
            LatencyPredictor(SPACE).fit(genomes, f * truth(genomes)).negative_log_evidence for f in (1, 1e6)
        )
        assert million - one == pytest.approx(40 * np.log(1e6), rel=1e-6)


def test_readings_are_believed_as_far_as_the_targets_make_them_likely() -> None:
    """A device on which only whether there is an operation counts, read with and without which one it is."""
    blind = SearchSpace("blind", tuple(Choice(f"e{i}.op", ("none", "some")) for i in range(8)))
    genomes = networks(40)
    seen = np.minimum(genomes, 1)
    for truth, best in ((seen.sum(axis=1), 1), (COST[genomes].sum(axis=1), 0)):
        targets = 1e-3 * (2 + truth) * (1 + np.random.default_rng(2).normal(0, 0.02, 40))
        fits = [LatencyPredictor(SPACE).fit(genomes, targets), LatencyPredictor(blind).fit(seen, targets)]
        weights = evidence(fits)
        assert weights.sum() == pytest.approx(1)
        assert weights[best] > 0.9


def test_other_devices_are_read_as_logarithms_where_the_target_is() -> None:
    """One number format from another: a share less, differently for every choice."""
    genomes, new = networks(400), networks(300, seed=1)
    source = fit_sources(SPACE, genomes, multiplied(genomes)[:, None], ("fp32",))
    change = np.random.default_rng(6).normal(0, 0.15, (8, len(OPS)))

    def integer(rows: Genomes) -> np.ndarray:
        return np.asarray(multiplied(rows, seed=4) * np.exp(change[np.arange(8), rows].sum(axis=1) - 1))

    few = genomes[:20]
    said = LatencyPredictor(SPACE, sources=source).fit(few, integer(few)).predict(new).mean
    assert np.mean(np.abs(said / integer(new) - 1)) < 0.3


# -- with other devices ----------------------------------------------------------------------------

DEVICES = ("a", "b", "c", "d")


def device_options(rng: np.random.Generator) -> np.ndarray:
    """(8, 5) cost of every option of every choice; devices share some of it."""
    shared = np.random.default_rng(7).uniform(0, 3, (8, len(OPS)))
    return shared + rng.uniform(0, 1.5, (8, len(OPS)))


def on(options: np.ndarray, genomes: Genomes) -> np.ndarray:
    return np.asarray(1e-3 * (5 + options[np.arange(8), genomes].sum(axis=1)))


def tables(genomes: Genomes) -> np.ndarray:
    return np.column_stack([on(device_options(np.random.default_rng(i)), genomes) for i in range(4)])


def test_sources_know_networks_that_are_not_in_their_tables() -> None:
    genomes, new = networks(400), networks(50, seed=1)
    table, unseen = tables(genomes), tables(new)
    sources = fit_sources(SPACE, genomes, table, DEVICES)
    assert_allclose(sources(new), (unseen - table.mean(axis=0)) / table.std(axis=0), atol=0.01)
    fewer = sources.without(["b", "d"])
    assert fewer.devices == ("a", "c")
    assert_allclose(fewer(new), sources(new)[:, [0, 2]])


def test_sources_may_be_measured_on_part_of_the_table() -> None:
    genomes, new = networks(400), networks(50, seed=1)
    whole = fit_sources(SPACE, genomes, tables(genomes), DEVICES)
    table = tables(genomes)
    table[150:, 2] = np.nan
    part = fit_sources(SPACE, genomes, table, DEVICES)
    assert_allclose(part(new)[:, [0, 1, 3]], whole(new)[:, [0, 1, 3]])
    few = tables(genomes)[:150, 2]
    unseen = tables(new)[:, 2]
    assert_allclose(part(new)[:, 2], (unseen - few.mean()) / few.std(), atol=0.02)
    assert np.isfinite(part.logs(new)).all()


def test_what_is_no_table_is_refused() -> None:
    genomes = networks(30)
    table = tables(genomes)
    with pytest.raises(TrilobitError, match="30 networks, 2 devices"):
        fit_sources(SPACE, genomes, table, ("a", "b"))
    table[4, 2] = np.inf
    with pytest.raises(TrilobitError, match="c: latency of row 4 is inf; wanted seconds above 0, or NaN"):
        fit_sources(SPACE, genomes, table, DEVICES)
    table[:, 2] = np.nan
    with pytest.raises(TrilobitError, match="c: no network was measured on it; leave the device out"):
        fit_sources(SPACE, genomes, table, DEVICES)


def test_other_devices_help() -> None:
    genomes, new = networks(400), networks(300, seed=1)
    sources = fit_sources(SPACE, genomes, tables(genomes), DEVICES)
    target = device_options(np.random.default_rng(11))
    few = genomes[:10]
    rho = [
        spearmanr(
            LatencyPredictor(SPACE, sources=one).fit(few, on(target, few)).predict(new).mean, on(target, new)
        )
        for one in (sources, None)
    ]
    assert rho[0].statistic > 0.85 > rho[1].statistic + 0.1


def test_chosen_networks_leave_less_variance_than_random_ones() -> None:
    pool = networks(300)
    chosen = choose_networks(LatencyPredictor(SPACE), pool, 10, rng=np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 10
    description = describe(SPACE, None, None, pool)
    x = description(pool)
    total = np.tensordot(description.expected, description.grams(x, x), 1) + 10.0

    def left(rows: np.ndarray) -> float:
        known = total[np.ix_(rows, rows)] + 0.02 * np.eye(len(rows))
        return float(np.trace(total - total[:, rows] @ np.linalg.solve(known, total[rows])))

    random = [left(np.random.default_rng(s).permutation(300)[:10]) for s in range(20)]
    assert left(chosen) < min(random)


def test_a_pool_that_is_too_small_is_refused() -> None:
    with pytest.raises(TrilobitError, match="5 networks to choose of 3"):
        choose_networks(LatencyPredictor(SPACE), networks(3), 5, rng=np.random.default_rng(0))
