"""Weights that are fitted to what integers say: nearer to the network in real numbers on examples that the
fit has not seen.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")  # as for the networks that it is tried on

from supernet.graph.quantized_graph import QuantizedGraph
from supernet.ptq import integer_only
from supernet.ptq.integer_refit import _ridge
from tests.supernet.ptq.integer_networks import FAMILIES, by_arithmetic, examples, subnet_of

CHANCE = 1.05  # of networks with random weights, which have little in common that could be learned


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_to_unseen_examples_are_as_near_or_nearer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]
    subnet, tried = subnet_of(family), examples(family, 32, seed=2)
    with torch.no_grad():
        exact = subnet(tried).numpy()

    def error(network: QuantizedGraph) -> float:
        return float(np.sqrt(np.square(by_arithmetic(network, tried).reshape(exact.shape) - exact).mean()))

    fitted = error(integer_only.quantize_integer_only(subnet, examples(family, 64)))
    monkeypatch.setattr(integer_only, "refitted", lambda network, *others: network)
    plain = error(integer_only.quantize_integer_only(subnet, examples(family, 64)))
    assert fitted < (0.9 if name == "tiny-resnet" else CHANCE) * plain


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 5))
def test_a_ridge_finds_the_matrix_or_keeps_its_own(seed: int, features: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    true, offset = rng.normal(size=(outputs, features)), rng.normal(size=outputs)
    x, own = rng.normal(1, 1, (50, features)), rng.normal(size=(outputs, features))
    y = x @ true.T + offset
    found = _ridge(own, x, y, 1e-12)
    np.testing.assert_allclose(found.weight, true, atol=1e-6)
    np.testing.assert_allclose(found.offset, offset, atol=1e-6)
    kept = _ridge(own, x, y, np.inf)
    np.testing.assert_array_equal(kept.weight, own)
    assert found.error(x, y) <= _ridge(own, x, y, 0.1).error(x, y) <= kept.error(x, y)


def test_what_is_never_seen_moves_no_weight() -> None:
    own = np.ones((2, 3))
    found = _ridge(own, np.zeros((8, 3)), np.ones((8, 2)), 1e-3)
    np.testing.assert_array_equal(found.weight, own)
    np.testing.assert_array_equal(found.offset, 1.0)
