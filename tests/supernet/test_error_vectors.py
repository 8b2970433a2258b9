"""Errors of answers as vectors: their squared lengths are divergences, and short ones keep inner products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supernet.tasks.divergence import divergence, signal_to_noise
from supernet.tasks.error_vectors import LENGTH, ErrorVectors, error_vectors
from supernet.tasks.output_roles import OutputRole, Role


def vectors_of(role: Role, original: np.ndarray, **sizes: int) -> ErrorVectors:
    made = error_vectors((OutputRole("y", role, **sizes),), {"y": original}, rng=np.random.default_rng(0))
    assert made is not None
    return made


def squared(vectors: ErrorVectors, answers: np.ndarray) -> float:
    error = vectors({"y": answers})
    assert error is not None
    return float(error @ error)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 999), st.integers(2, 9), st.integers(1, 5))
def test_small_errors_have_the_length_of_their_divergence(seed: int, classes: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (20, 1, steps, classes)).astype(np.float32)
    other = scores + 0.02 * rng.standard_normal(scores.shape).astype(np.float32)
    output = OutputRole("y", Role.SCORES, classes=classes, steps=steps)
    expected = divergence(other, scores, output).mean()
    of_scores = vectors_of(Role.SCORES, scores, classes=classes, steps=steps)
    assert squared(of_scores, other) == pytest.approx(expected, rel=0.1)
    of_shares = vectors_of(Role.PROBABILITIES, softmax(scores), classes=classes, steps=steps)
    assert squared(of_shares, softmax(other)) == pytest.approx(squared(of_scores, other), rel=1e-2)
    assert squared(of_scores, 50 * other[:, :, :, ::-1]) <= 4  # however wrong answers are


def test_chances_and_values() -> None:
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.1, 0.9, (30, 7)).astype(np.float32)
    other = np.clip(chances + 0.01 * rng.standard_normal(chances.shape), 0, 1).astype(np.float32)
    output = OutputRole("y", Role.CHANCES, steps=7)
    expected = divergence(other, chances, output).mean()
    assert squared(vectors_of(Role.CHANCES, chances, steps=7), other) == pytest.approx(expected, rel=0.1)
    values = rng.standard_normal((30, 7)).astype(np.float32)
    noise_share = 10 ** (-signal_to_noise(values + other, values) / 10)
    assert squared(vectors_of(Role.VALUES, values), values + other) == pytest.approx(noise_share, rel=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 999), st.sampled_from([1024, 1000, 17]))
def test_short_vectors_keep_inner_products(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    original = np.zeros((100, 1, classes), np.float32)
    original[:, 0, 0] = 1.0  # its energy is 100
    vectors = vectors_of(Role.VALUES, original)
    loud = np.zeros_like(original)
    loud[:, :, 5] = rng.standard_normal((100, 1))  # the same class of every example
    first, second = loud + 0.1 * rng.standard_normal((2, *original.shape)).astype(np.float32)
    a, b = (vectors({"y": original + error}) for error in (first, second))
    assert a is not None
    assert b is not None
    assert len(a) == LENGTH
    lengths = np.linalg.norm(first) * np.linalg.norm(second) / 100
    assert float(a @ b) == pytest.approx(
        float((first * second).sum()) / 100, abs=5 / np.sqrt(LENGTH) * lengths
    )
    both = vectors({"y": original + first + second})
    assert both == pytest.approx(a + b, abs=1e-5)


def test_what_cannot_be_compared_is_none() -> None:
    rng = np.random.default_rng(0)
    decisions = (OutputRole("y", Role.DECISIONS),)
    assert error_vectors(decisions, {"y": np.zeros((5, 3), np.int64)}, rng=rng) is None
    several = [np.zeros((1, n), np.float32) for n in (2, 3)]
    assert error_vectors((OutputRole("y", Role.VALUES),), {"y": several}, rng=rng) is None
    values = vectors_of(Role.VALUES, np.ones((5, 3), np.float32))
    assert values({"y": np.ones((5, 4), np.float32)}) is None
    assert values({"y": several}) is None
    assert squared(values, np.full((5, 3), np.nan, np.float32)) == 0


def test_of_probabilities_and_values_the_probabilities_count() -> None:
    outputs = (OutputRole("features", Role.VALUES), OutputRole("y", Role.PROBABILITIES, classes=2))
    answers = {"features": np.ones((5, 3), np.float32), "y": np.full((5, 2), 0.5, np.float32)}
    vectors = error_vectors(outputs, answers, rng=np.random.default_rng(0))
    assert vectors is not None
    error = vectors({**answers, "features": np.zeros((5, 3), np.float32)})
    assert error is not None
    assert not error.any()
