"""A few real images to train on."""

from dataclasses import replace

import pytest

from supernet.data.dataset import Dataset, load_data


@pytest.fixture(scope="session")
def few_digits() -> Dataset:
    """48 images to train on, 100 to look at, of the embedded digits."""
    whole = load_data("digits", seed=0)
    return replace(whole, train=whole.train[:48], validation=whole.validation[:100])
