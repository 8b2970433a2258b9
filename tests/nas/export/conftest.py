"""Digits, and a supernet trained on them for seconds: enough that logits differ from class to class."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train.loop import TrainConfig, load_supernet, train

Build = Callable[[Candidate], QuantizedGraph]


@pytest.fixture(scope="session")
def digits() -> ImageClassification:
    return load_images("digits", seed=0)


@pytest.fixture(scope="session")
def build(family: Family, digits: ImageClassification, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a candidate's network, with weights of the trained supernet; built once."""
    path: Path = tmp_path_factory.mktemp("supernet") / "last.pt"
    list(train(family, digits, TrainConfig(epochs=1, random_subnets=0), path, seed=0))
    net, calibration = load_supernet(family, path), calibration_examples(digits, seed=0)
    return cache(lambda candidate: build_network(family, net, candidate, digits, calibration))
