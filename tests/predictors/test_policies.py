"""The predictor of divergences: what it learns of sums, of shared tensors, and of its own error."""

import numpy as np
from scipy.stats import kendalltau

from nas.tune.policies.first_policies import first_policies, varied_policies
from predictors.accuracy.policies import PolicyPredictor
from supernet.space.space import Choice, SearchSpace

UNITS = 24
SPACE = SearchSpace(
    "policies",
    tuple(Choice(f"u{i}", ("fp32", "int8", "int4"), kind="precision", role="format") for i in range(UNITS)),
)
TENSORS = np.array(
    [
        [gene > 0 and tensor in (unit, unit + 1) for tensor in range(UNITS + 1)]
        for unit in range(UNITS)
        for gene in range(3)
    ]
)


def in_codes(genomes: np.ndarray) -> np.ndarray:
    return SPACE.one_hot(genomes) @ TENSORS > 0


def divergences(genomes: np.ndarray, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Sums of what is rounded, each part of its own size, measured with an error of 5 %."""
    parts = np.random.default_rng(1)
    weights = np.exp(parts.normal(-7, 1.2, (UNITS, 3))) * [0, 1, 10]
    tensors = np.exp(parts.normal(-7, 1.2, UNITS + 1))
    codes = in_codes(genomes)
    added = (weights[np.arange(UNITS), genomes] ** exponent).sum(axis=1) + codes @ tensors**exponent
    return added ** (1 / exponent) * np.exp(0.05 * rng.standard_normal(len(genomes)))


def test_unseen_policies_are_ordered_and_the_spread_is_honest() -> None:
    rng = np.random.default_rng(0)
    for exponent in (0.5, 1.0):
        seen, unseen = first_policies(SPACE, 120, rng=rng), varied_policies(SPACE, 100, rng=rng)
        unseen = unseen[(unseen > 0).sum(axis=1) > 1]
        logs = np.log(divergences(seen, exponent, rng) + 1e-9)
        truth = np.log(divergences(unseen, exponent, rng))
        predicted = PolicyPredictor(SPACE, tensors=in_codes).fit(seen, logs).predict(unseen)
        assert kendalltau(predicted.mean, truth).statistic > 0.85
        inside = np.abs(predicted.mean - truth) < 1.645 * predicted.std
        assert 0.75 < inside.mean() <= 1


def test_fp32_throughout_is_what_was_measured_of_it() -> None:
    seen = first_policies(SPACE, 60, rng=np.random.default_rng(0))
    logs = np.where((seen > 0).any(axis=1), -3.0, -16.0)
    predicted = PolicyPredictor(SPACE).fit(seen, logs).predict(seen[:1])
    assert predicted.mean[0] == -16.0
