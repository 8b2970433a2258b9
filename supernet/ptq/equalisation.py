"""Cross-layer equalisation and migration: channels of tensors are scaled so that one scale serves them all.

Per-tensor scales waste codes on channels of small range. What a channel is divided by, the products that read
it are multiplied with: a compromise between the range of activations a_j and of weights w_j, s_j = a_j^alpha
/ w_j^(1 - alpha), as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438); equal ranges of both (alpha = 1/2)
are the cross-layer equalisation of Nagel et al. 2019. Where inputs stay real, it is their mean magnitude to a
power that weights are multiplied with (AWQ, Lin et al. 2023, arXiv:2306.00978). Here for whole ties: pairs of
layers, residual streams, what follows a layer norm.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supernet.formats.weight_format import WeightFormat
from supernet.imported.model import ImportedModel
from supernet.ptq.channel_ties import channel_ties, scaled_constants
from supernet.ptq.constants import with_constants
from supernet.ptq.observation import Observation, TensorStatistics
from supernet.ptq.product import Product
from supernet.ptq.quantization import Compensation
from supernet.ptq.ranges import fake_quantize, params_within, relative_error

Array = NDArray[np.float32]

ALPHAS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
LARGEST_FACTOR = 64.0  # by which channels move apart
LEAST_GAIN = 0.95  # of the error: less is not worth other numbers in the file
_UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class TiedReader:
    """A product that reads a tied tensor.

    Attributes:
        statistics: of the tensor.
        rows: (groups, n, k) of it.
        judge: what errors are computed with.
    """

    product: Product
    statistics: TensorStatistics
    rows: Array
    judge: "Judge"

    def by_row(self, factors: Array) -> Array:
        """Return factors (channels,) as (groups, 1, k) of rows."""
        groups = self.product.groups
        repeats = self.product.weight.shape[2] * groups // len(factors)
        return np.repeat(factors.reshape(groups, -1), repeats, axis=1)[:, None, :]

    def activations(self, channels: int, *, static: bool) -> Array:
        """Return the largest magnitude of each channel, or the mean one where inputs stay real."""
        if static:
            return np.maximum(np.abs(self.statistics.channel_low), np.abs(self.statistics.channel_high))
        means = np.abs(self.rows).mean(axis=1)  # (groups, k)
        return np.asarray(means.reshape(channels, -1).mean(axis=1), np.float32)

    def weights(self, channels: int) -> Array:
        """Return the largest weight of each channel, as a share of the largest of its output."""
        magnitude = np.abs(self.product.weight)
        shares = magnitude / np.maximum(magnitude.max(axis=2, keepdims=True), 1e-30)
        return np.asarray(shares.max(axis=1).reshape(channels, -1).max(axis=1), np.float32)

    def error(self, factors: Array) -> float:
        """Return the relative squared error of its outputs where the tensor is divided by factors."""
        product, by_row = self.product, self.by_row(factors)
        rows = self.rows / by_row
        if self.judge.static:
            low, high = self.statistics.channel_low / factors, self.statistics.channel_high / factors
            rows = fake_quantize(rows, params_within(float(low.min()), float(high.max()), _UNBOUNDED))
        number_format = self.judge.weight_format
        scaled = (product.weight * by_row).reshape(product.shape)
        rounded = product.by_group(number_format.decode(number_format.encode(scaled)))
        exact = product.activated(product.sums(self.rows) + product.bias)
        sums = product.sums(rows, rounded)
        shift = (sums - product.sums(self.rows)).mean(axis=0) if product.correctable else 0
        return relative_error(product.activated(sums - shift + product.bias), exact)


@dataclass(frozen=True, eq=False)
class Judge:
    """The format that a unit's errors are computed with.

    Attributes:
        weight_format: of its weights on the device.
        static: whether its input is rounded to codes of a stored scale.
    """

    weight_format: WeightFormat
    static: bool


def equalise(
    model: ImportedModel,
    observation: Observation,
    products: Mapping[str, Product],
    judges: Mapping[str, Judge],
) -> tuple[ImportedModel, tuple[Compensation, ...]]:
    """Return the model with scaled channels where that lowers the error of those that read them.

    Args:
        products, judges: by unit; units that nothing is chosen for are left out.
    """
    compensations: list[Compensation] = []
    by_weight = {model.unit(name).weight: product for name, product in products.items()}
    changed = dict(model.constants)
    for tie in channel_ties(model):
        members = [by_weight[each.constant] for each in tie.readers if each.constant in by_weight]
        readers = [
            TiedReader(product, observation.tensors[product.source], observation.rows[product.unit], judge)
            for product in members
            if (judge := judges.get(product.unit)) and observation.rows[product.unit].size
        ]
        choice = _best_factors(readers, tie.channels)
        if choice is not None:
            factors, before, after = choice
            changed |= scaled_constants(changed, tie, factors)
            technique = "migration" if tie.normed else "equalisation"
            compensations.append(Compensation(technique, tie.tensors[0], "", before, after))
    if not compensations:
        return model, ()
    new = {name: array for name, array in changed.items() if array is not model.constants[name]}
    return with_constants(model, new), tuple(compensations)


def _best_factors(readers: Sequence[TiedReader], channels: int) -> tuple[Array, float, float] | None:
    """Return what to divide channels by, with the error before and after; None where it helps too little."""
    if not readers:
        return None
    candidates = [np.ones(channels, np.float32), *_candidates(readers, channels)]
    errors = [sum(reader.error(factors) for reader in readers) for factors in candidates]
    best = int(np.argmin(errors))
    if errors[best] >= LEAST_GAIN * errors[0]:
        return None
    return candidates[best], errors[0], errors[best]


def _candidates(readers: Sequence[TiedReader], channels: int) -> Iterator[Array]:
    static = any(reader.judge.static for reader in readers)
    activations = np.max([reader.activations(channels, static=static) for reader in readers], axis=0)
    weights = np.max([reader.weights(channels) for reader in readers], axis=0)
    alive = (activations > 0) & (weights > 0)
    for alpha in ALPHAS:
        factors = np.ones(channels)
        power = activations[alive] ** alpha
        factors[alive] = power / weights[alive] ** (1 - alpha) if static else power
        centre = np.exp(np.log(factors[alive]).mean()) if alive.any() else 1.0
        factors[alive] = np.clip(factors[alive] / centre, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
        yield factors.astype(np.float32)
