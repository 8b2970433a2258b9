"""One pass over calibration samples records what tensors hold."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from supernet.data.samples import Samples
from supernet.imported.model import ImportedModel
from supernet.ptq.observation import observe
from supernet.ptq.products import read_products
from supernet.ptq.settings import PtqSettings
from tests.supernet.ptq.imported_models import imported_model, node

TENSORS = ("x", "y", "z")


def chain() -> ImportedModel:
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(6, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(4, 6, 1, 1)).astype(np.float32),
    }
    nodes = [node("Conv", ["x", "w"], "a"), node("Relu", ["a"], "y"), node("Conv", ["y", "v"], "z")]
    return imported_model(nodes, constants, {"x": (1, 3, 8, 8)}, ["z"])


def images(n: int = 5) -> Samples:
    growing = np.arange(1, n + 1).reshape(-1, 1, 1, 1, 1)  # so that ranges grow from sample to sample
    return Samples(
        {"x": (np.random.default_rng(1).normal(size=(n, 1, 3, 8, 8)) * growing).astype(np.float32)}
    )


def observed(model: ImportedModel, samples: Samples, settings: PtqSettings | None = None):
    rng = np.random.default_rng(2)
    return observe(model, samples, TENSORS, read_products(model), rng=rng, settings=settings or PtqSettings())


def test_ranges_and_counts_are_those_of_all_values() -> None:
    samples = images()
    found = observed(chain(), samples).tensors["x"]
    values = samples.inputs["x"]
    assert (found.low, found.high) == (values.min(), values.max())
    np.testing.assert_array_equal(found.channel_high, values.max(axis=(0, 1, 3, 4)))
    assert found.histogram.counts.sum() == values.size
    for share in (0.01, 0.3, 0.9, 0.999):
        assert abs((values < found.histogram.quantile(share)).mean() - share) < 0.01


def test_parts_within_the_limit_on_memory_give_the_same() -> None:
    whole = observed(chain(), images())
    parts = observed(chain(), images(), replace(PtqSettings(), activation_bytes=2**20))
    assert whole.rows.keys() == parts.rows.keys() == {"a.Conv", "z.Conv"}
    for unit, rows in whole.rows.items():
        np.testing.assert_array_equal(rows, parts.rows[unit])


def test_what_is_not_finite_is_named_with_its_sample() -> None:
    samples = images()
    samples.inputs["x"][3, 0, 1, 2, 2] = np.nan
    with pytest.raises(TrilobitError, match="'x' holds NaN for calibration sample 3"):
        observed(chain(), samples)
    with pytest.raises(TrilobitError, match="no calibration samples"):
        observed(chain(), images(0))
