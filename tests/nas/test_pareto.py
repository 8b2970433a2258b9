"""Dominance against pymoo's own implementation and against the definition; the invariants of a front."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.indicators.hv import HV
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nas.search.front import Evaluation, ParetoFront, pareto_front
from nas.search.objectives import objective
from nas.search.pareto import crowding_distance, hypervolume, non_dominated, rank, rank_order
from supernet.space.space import Candidate

VOLUME_TOLERANCE = 1e-10  # both are exact; they add in another order
OBJECTIVES = (objective("accuracy"), objective("latency"))
REFERENCE = (0.0, 10.0)

# few distinct values, so that ties and duplicates are common
matrices = st.integers(1, 3).flatmap(
    lambda m: arrays(
        np.float64, st.tuples(st.integers(1, 12), st.just(m)), elements=st.integers(0, 5).map(float)
    )
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


@given(matrices)
def test_non_dominated_is_the_definition(Y: np.ndarray) -> None:
    expected = [
        not any(dominates(other, row) for other in Y) and not any((other == row).all() for other in Y[:i])
        for i, row in enumerate(Y)
    ]
    assert non_dominated(Y).tolist() == expected


@pytest.mark.parametrize("m", [2, 3, 4])
def test_ranks_equal_pymoo(m: int) -> None:
    Y = np.random.default_rng(m).random((300, m))
    fronts = NonDominatedSorting().do(Y)
    expected = np.empty(len(Y), int)
    for index, front in enumerate(fronts):
        expected[front] = index
    np.testing.assert_array_equal(rank(Y), expected)
    np.testing.assert_array_equal(non_dominated(Y), expected == 0)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_hypervolume_equals_pymoo(m: int) -> None:
    Y = np.random.default_rng(m).random((60, m)) * 1.2  # some rows are beyond the reference
    expected = HV(ref_point=np.ones(m))(Y)
    assert hypervolume(Y, np.ones(m)) == pytest.approx(expected, rel=VOLUME_TOLERANCE)


@pytest.mark.parametrize("m", [2, 3])
def test_crowding_distance_orders_as_pymoo(m: int) -> None:
    Y = np.random.default_rng(m).random((200, m))
    ranks = rank(Y)
    ours = crowding_distance(Y, ranks)
    for front in range(ranks.max() + 1):
        rows = ranks == front
        if rows.sum() < 3:
            continue  # pymoo gives single rows 0, we give all ends infinity
        expected = (
            calc_crowding_distance(Y[rows], filter_out_duplicates=False) * m
        )  # pymoo's is the mean over objectives
        np.testing.assert_allclose(ours[rows], expected)


def test_rank_order_is_lexicographic() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(400)
    for ranks in (rng.integers(0, 9, 400), rng.integers(0, 2**40, 400), np.zeros(400, np.int64)):
        np.testing.assert_array_equal(rank_order(values, ranks), np.lexsort((values, ranks)))
    assert len(rank_order(values[:0], ranks[:0])) == 0


def test_crowding_distance_of_degenerate_fronts() -> None:
    assert crowding_distance(np.empty((0, 2)), np.empty(0, np.int64)).shape == (0,)
    assert np.isinf(crowding_distance(np.zeros((2, 2)), np.zeros(2, np.int64))).all()
    equal = crowding_distance(np.zeros((4, 1)), np.zeros(4, np.int64))
    assert sorted(equal) == [0, 0, np.inf, np.inf]


@given(matrices, st.randoms(use_true_random=False))
def test_hypervolume_never_falls_when_a_point_joins(Y: np.ndarray, random: object) -> None:
    del random
    reference = np.full(Y.shape[1], 6.0)
    volumes = [hypervolume(Y[:n], reference) for n in range(len(Y) + 1)]
    assert volumes[0] == 0
    assert (np.diff(volumes) >= 0).all()


@given(matrices)
def test_only_non_dominated_rows_have_volume(Y: np.ndarray) -> None:
    reference = np.full(Y.shape[1], 6.0)
    assert hypervolume(Y[non_dominated(Y)], reference) == hypervolume(Y, reference)


def test_failed_rows_neither_win_nor_dominate() -> None:
    Y = np.array([[np.nan, 0.0], [-np.inf, -np.inf], [1.0, 1.0], [2.0, 2.0]])
    assert non_dominated(Y).tolist() == [False, False, True, False]
    assert rank(Y).tolist() == [2, 2, 0, 1]
    assert hypervolume(Y, [3.0, 3.0]) == 4.0
    assert not non_dominated(Y[:2]).any()


def evaluation(gene: int, accuracy: float, latency: float, source: str = "predicted") -> Evaluation:
    candidate = Candidate((gene,), f"id{gene}")
    return Evaluation(candidate, {"accuracy": accuracy, "latency": latency}, source)  # type: ignore[arg-type]


def test_pareto_front_keeps_the_best_and_sorts() -> None:
    failed = Evaluation(Candidate((9,), "id9"), {}, "predicted", error="unsupported layer")
    rows = [evaluation(0, 0.5, 1.0), evaluation(1, 0.9, 5.0), evaluation(2, 0.4, 2.0), failed]
    front = pareto_front(OBJECTIVES, rows, REFERENCE)
    assert [e.candidate.genes for e in front.evaluations] == [(1,), (0,)]
    assert front.hypervolume == pytest.approx(0.9 * 5 + 0.5 * 4)
    np.testing.assert_array_equal(front.minimised, [[-0.9, 5.0], [-0.5, 1.0]])


def test_pareto_front_leaves_out_what_breaks_a_bound() -> None:
    limited = (objective("accuracy", 0.6), objective("latency"))
    front = pareto_front(limited, [evaluation(0, 0.5, 1.0), evaluation(1, 0.9, 5.0)], REFERENCE)
    assert [e.candidate.id for e in front.evaluations] == ["id1"]
    assert pareto_front(OBJECTIVES, [], REFERENCE).hypervolume == 0


@pytest.mark.parametrize(
    ("evaluations", "message"),
    [
        ((evaluation(0, 0.5, 1.0), evaluation(1, 0.4, 2.0)), "dominated"),
        ((evaluation(0, 0.5, 1.0), evaluation(1, 0.5, 1.0)), "dominated"),
        ((evaluation(0, 0.5, 1.0), evaluation(0, 0.9, 2.0)), "there twice"),
        (
            (evaluation(0, 0.5, 1.0), evaluation(1, 0.9, 2.0, "measured")),
            "one source, not measured, predicted",
        ),
        ((evaluation(0, float("nan"), 1.0),), "dominated"),
    ],
)
def test_a_front_checks_itself(evaluations: tuple[Evaluation, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParetoFront(OBJECTIVES, evaluations, REFERENCE)


def test_a_front_needs_a_reference_per_objective() -> None:
    with pytest.raises(ValueError, match="1 reference values for 2 objectives"):
        ParetoFront(OBJECTIVES, (), (1.0,))


@pytest.mark.parametrize(("values", "error"), [({}, None), ({"latency": 1.0}, "it broke")])
def test_an_evaluation_has_either_values_or_an_error(values: dict[str, float], error: str | None) -> None:
    with pytest.raises(ValueError, match="either values or an error"):
        Evaluation(Candidate((0,), "id0"), values, "measured", error=error)
