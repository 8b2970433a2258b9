"""A few real images to train on."""

from dataclasses import replace

import pytest

from supernet.families.mbconv import MBConvFamily, Stage
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images


@pytest.fixture(scope="session")
def small_family() -> MBConvFamily:
    """All that a space has, in few layers."""
    stages = (Stage(8, 1, (1, 2), (16, 24), (3, 5)), Stage(16, 2, (1, 2), (24, 32), (3, 5)))
    return MBConvFamily("small", (8, 14), 8, stages, 24, 1, 10)


@pytest.fixture(scope="session")
def few_digits() -> ImageClassification:
    """48 images to train on, 100 to look at, of the embedded digits."""
    whole = load_images("digits", seed=0)
    return replace(whole, train=whole.train[:48], validation=whole.validation[:100])
