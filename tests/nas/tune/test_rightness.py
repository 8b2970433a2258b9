"""How often the original is right is said first: what it reads may not be what it learned from."""

import numpy as np

from nas.tune.pipeline import rightness
from supernet.data.samples import Samples
from supernet.tasks.fidelity import fidelity_of

RNG = np.random.default_rng(0)
LABELS = np.arange(60, dtype=np.int64) % 5


def line(logits: np.ndarray, labels: np.ndarray | None) -> str:
    samples = Samples({"x": np.zeros((60, 1, 3), np.float32)}, labels)
    outputs = {"y": logits.astype(np.float32)}
    return rightness(fidelity_of(outputs, samples), outputs, samples)


def test_an_original_that_only_guesses_is_doubted() -> None:
    right = np.eye(5)[LABELS] * 4
    assert line(right, LABELS) == "the original is right on 100.0 % of 60 examples"
    wrong = line(np.roll(right, 1, axis=1), LABELS)
    assert "the original is right on 0.0 % of 60 examples, about what guessing among 5 classes" in wrong
    assert "--scale" in wrong
    assert line(right, None) == ""
