"""Scores by block type: the best of all that have one."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        import block_types

        return block_types


def test_shares_are_of_the_best_space_that_has_a_type(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    spaces = np.array([(a, b, w, v) for a in range(3) for b in range(3) for w in range(2) for v in range(2)])
    scores = rng.uniform(1, 2, len(spaces))
    found = script.shares(spaces, scores, 3, [2, 0])
    for t in range(3):
        rows = [[i for i, space in enumerate(spaces) if space[s] == t] for s in range(2)]
        both = sorted({*rows[0]} & {*rows[1]})
        expected = [scores[each].max() / scores.max() for each in (*rows, both)]
        np.testing.assert_allclose(found[:, t], expected)
    assert (found[:2].max(axis=1) == 1).all()
    ours = [scores[i] for i, space in enumerate(spaces) if tuple(space[:2]) == (2, 0)]
    np.testing.assert_allclose(found[:, 3], [found[0, 2], found[1, 0], max(ours) / scores.max()])


def test_rows_name_the_space_that_most_seeds_choose(script: ModuleType) -> None:
    types = len(script.TYPES)
    made = [
        [script.Choice(1e-4 * (i + 1), chosen, np.full((4, types + 1), share)) for i in range(3)]
        for chosen, share in (("x", 0.8), ("y", 1.0), ("x", 0.9))
    ]
    rows = script.rows_of("ort", made)
    assert len(rows) == 3 * 4
    assert rows[0].task == f"ort, 100 us ({script.LIMITS[0]}): x (2 of 3 seeds)"
    assert rows[0].ours == pytest.approx(0.9)
    assert [*rows[0].peers] == [*script.TYPES]
    assert rows[3].metric == "score with the types of cifar-pooled in all stages"
