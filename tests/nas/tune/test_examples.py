"""Made-up inputs that can be made again anywhere, and what a network gave for them."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nas.checks.examples import (
    DTYPES,
    MOST_VALUES,
    Array,
    ExampleAnswers,
    ExampleInput,
    agreement,
    answers,
    example_inputs,
    made_up,
)

INPUTS = (
    ExampleInput("x", "float32", (1, 3, 20, 20), -1.0, 2.0),
    ExampleInput("ids", "int64", (1, 7), 3, 90_000),
)


@given(
    arrays.arrays(
        st.sampled_from(["float32", "float16", "int64", "int8", "uint8", "bool"]),
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=20),
        elements=None,
    )
)
def test_made_up_inputs_are_within_what_was_seen(array: Array) -> None:
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, posinf=1.0, neginf=-1.0)
    [stated] = example_inputs({"x": array})
    made = made_up([stated], 3)["x"]
    assert made.shape == array.shape[1:]
    assert made.dtype == array.dtype
    assert made.min() >= array.min()
    assert made.max() <= array.max()


def test_made_up_inputs_never_change() -> None:
    """Manifests that were written count on it."""
    made = [made_up(INPUTS, example) for example in (0, 1)]
    digests = [hashlib.sha256(m["x"].tobytes() + m["ids"].tobytes()).hexdigest()[:12] for m in made]
    assert digests == ["d194f6304f3e", "7a02c73b3d31"]
    assert np.array_equal(made[0]["x"][..., :4, :4], np.broadcast_to(made[0]["x"][..., :1, :1], (1, 3, 4, 4)))


def test_inputs_that_cannot_be_made_up_are_refused() -> None:
    for bad in (np.array(["text"]), np.full((2, 3), np.nan, np.float32), np.array([1j])):
        with pytest.raises((ValueError, TypeError)):
            example_inputs({"x": bad})
    assert "float32" in DTYPES


def test_answers_tell_a_network_from_another_and_not_from_its_own_rounding() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(400, 50))

    def network(noise: float = 0.0, shape: int = 50) -> ExampleAnswers:
        changed = weight + noise * np.random.default_rng(1).normal(size=weight.shape)
        return answers(
            lambda inputs: {"y": inputs["x"].reshape(3, 400) @ changed[:, :shape], "one": np.array(4)},
            INPUTS,
            5,
        )

    original = network()
    assert agreement(original, original) == (1.0, 0.0)
    share, difference = agreement(network(1e-4), original)
    assert share == 1.0
    assert 0 < difference < 1e-3
    assert agreement(network(1.0), original)[0] <= 0.5  # the constant is the same
    assert agreement(network(shape=49), original) == (0.5, float("inf"))
    kept = [value for given in original.outputs.values() for answer in given for value in answer.values]
    assert len(kept) <= MOST_VALUES


def test_answers_that_are_not_finite_are_compared_too() -> None:
    def network(value: float) -> ExampleAnswers:
        return answers(lambda inputs: {"y": np.array([1.0, value])}, INPUTS, 1)

    assert agreement(network(np.nan), network(np.inf)) == (1.0, 0.0)
    assert agreement(network(np.nan), network(2.0)) == (0.0, float("inf"))
