"""A few real images to train on."""

from dataclasses import replace

import pytest

from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images


@pytest.fixture(scope="session")
def few_digits() -> ImageClassification:
    """48 images to train on, 100 to look at, of the embedded digits."""
    whole = load_images("digits", seed=0)
    return replace(whole, train=whole.train[:48], validation=whole.validation[:100])
