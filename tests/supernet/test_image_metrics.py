"""Metrics of images of classes, against counts by hand and against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from supernet.data.images import Images
from supernet.tasks.class_metrics import BINS, calibration_error
from supernet.tasks.image_classification import ImageClassification


def task(labels: list[int]) -> tuple[ImageClassification, Images]:
    images = Images(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels, np.int64))
    return ImageClassification("made-up", ("a", "b", "c"), images, images, images, (0.5,), (0.5,)), images


def logits(*answers: int) -> np.ndarray:
    return 9 * np.eye(3, dtype=np.float32)[list(answers)]


def test_metrics_are_what_is_counted_by_hand() -> None:
    made, images = task([0, 1, 2, 0])
    original, network = logits(0, 1, 0, 1), logits(0, 2, 2, 1)  # one wrong now, one right now
    values = made.evaluate(network, images, original)
    assert set(values) == {metric.name for metric in made.metrics}
    assert (values["accuracy"], values["flips"], values["agreement"]) == (0.5, 0.25, 0.5)
    assert made.scores(network, images).tolist() == [1, 0, 1, 0]
    assert set(made.evaluate(network, images)) == {"accuracy", "calibration", "worst_class"}


def test_the_worst_class_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    made, images = task(labels.tolist())
    said = np.where(rng.random(60) < 0.3, rng.integers(0, 3, 60), labels)
    recalls = recall_score(labels, said, average=None)
    assert made.evaluate(logits(*said), images)["worst_class"] == pytest.approx(recalls.min())


def test_a_network_flips_nothing_of_itself() -> None:
    made, images = task([0, 1, 2, 0])
    values = made.evaluate(logits(0, 0, 2, 1), images, logits(0, 0, 2, 1))
    assert (values["flips"], values["agreement"]) == (0, 1)


@given(st.integers(0, 1000), st.integers(1, 60))
def test_the_calibration_error_is_its_definition(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(0, 3, (n, 4)).astype(np.float32), rng.integers(0, 4, n)
    probabilities = torch.softmax(torch.from_numpy(scores).double(), dim=1).numpy()
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(BINS) / BINS:
        inside = (confidence >= low) & (confidence < low + 1 / BINS)
        if low == (BINS - 1) / BINS:
            inside |= confidence >= 1
        if inside.any():
            expected += inside.sum() / n * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(scores, labels) == pytest.approx(expected, abs=1e-9)


def test_sure_and_right_is_calibrated() -> None:
    assert calibration_error(1000 * logits(0, 1, 2), np.array([0, 1, 2])) == pytest.approx(0)
    assert calibration_error(1000 * logits(0, 1, 2), np.array([1, 2, 0])) == pytest.approx(1)
