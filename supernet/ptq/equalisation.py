"""Cross-layer equalisation and migration: channels of tensors are scaled so that one scale serves them all.

Per-tensor scales waste codes on channels of small range. What a channel is divided by, the products that read
it are multiplied with: a compromise between the range of activations a_j and of weights w_j, s_j = a_j^alpha
/ w_j^(1 - alpha), as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438); equal ranges of both (alpha = 1/2)
are the cross-layer equalisation of Nagel et al. 2019. Where inputs stay real, it is their mean magnitude to a
power that weights are multiplied with (AWQ, Lin et al. 2023, arXiv:2306.00978). Here for whole ties: pairs of
layers, residual streams, what follows a layer norm.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from supernet.formats.weight_format import WeightFormat
from supernet.imported.model import ImportedModel
from supernet.ptq.channel_ties import ChannelTie, scaled_constants
from supernet.ptq.constants import with_constants
from supernet.ptq.observation import Observation, TensorStatistics
from supernet.ptq.product import Product
from supernet.ptq.quantization import Compensation
from supernet.ptq.ranges import fake_quantize, params_within, relative_error, some_rows

Array = NDArray[np.float32]

ALPHAS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
JUDGED_ROWS = 256  # of each reader
LARGEST_FACTOR = 64.0  # by which channels move apart
# Of the error. Evened-out channels all fill their range, so that unseen data leave it more often: gains of a
# third lower the divergence of EfficientNet-Lite0 on crops of the calibration's photographs by a sixth, and
# raise it on another photograph by a third.
LEAST_GAIN = 0.5
LEVELS = 255
_TINY = 1e-12
_UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Judge:
    """A format that a unit's errors are computed with.

    Attributes:
        format: its name.
        weight_format: of the weights on the device.
        static: whether inputs are rounded to codes of a stored scale.
    """

    format: str
    weight_format: WeightFormat
    static: bool


@dataclass(frozen=True, eq=False)
class TiedReader:
    """A product that reads a tied tensor.

    Attributes:
        statistics: of the tensor.
        rows: (groups, n, k) of it.
        judges: formats that the unit may take.
    """

    product: Product
    statistics: TensorStatistics
    rows: Array
    judges: tuple[Judge, ...]

    @cached_property
    def sums(self) -> Array:
        """(n, out) exact ones, without bias."""
        return self.product.sums(self.rows)

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

    def errors(self, factors: Array) -> dict[str, float]:
        """Return the relative squared error of its outputs in each format, where the tensor is divided by
        factors."""
        product, by_row = self.product, self.by_row(factors)
        real = self.rows / by_row
        low, high = self.statistics.channel_low / factors, self.statistics.channel_high / factors
        codes = fake_quantize(real, params_within(float(low.min()), float(high.max()), _UNBOUNDED))
        scaled = (product.weight * by_row).reshape(product.shape)
        return {
            judge.format: self._error(codes if judge.static else real, scaled, judge.weight_format)
            for judge in self.judges
        }

    def sensitivity(self, channels: int) -> Array:
        """Return the relative squared error of its outputs for a unit of noise in each channel."""
        energy = float((self.sums + self.product.bias).var(axis=0, dtype=np.float64).sum())
        by_channel = np.square(self.product.weight).sum(axis=1).reshape(channels, -1).sum(axis=1)
        return np.asarray(by_channel / max(energy, _TINY), np.float32)

    def _error(self, rows: Array, weight: Array, number_format: WeightFormat) -> float:
        product = self.product
        sums = product.sums(rows, product.by_group(number_format.decode(number_format.encode(weight))))
        shift = (sums - self.sums).mean(axis=0) if product.correctable else np.float32(0)
        exact = product.activated(self.sums + product.bias)
        return relative_error(product.activated(sums - shift + product.bias), exact)


def equalise(
    model: ImportedModel,
    ties: Sequence[ChannelTie],
    observation: Observation,
    products: Mapping[str, Product],
    judges: Mapping[str, tuple[Judge, ...]],
    scaled: Collection[str],
) -> tuple[ImportedModel, tuple[Compensation, ...]]:
    """Return the model with scaled channels where that lowers the error of those that read them.

    Args:
        ties: tensors that can be scaled.
        observation: of these.
        products, judges: by unit; units that nothing is chosen for are left out.
        scaled: tensors that are codes in some policy.
    """
    compensations: list[Compensation] = []
    by_weight = {model.unit(name).weight: product for name, product in products.items()}
    changed = dict(model.constants)
    coded = observation.tensors.keys() & set(scaled)
    for tie in ties:
        members = [by_weight[each.constant] for each in tie.readers if each.constant in by_weight]
        readers = [
            TiedReader(
                product,
                observation.tensors[product.source],
                some_rows(rows, JUDGED_ROWS),
                judges[product.unit],
            )
            for product in members
            if product.unit in judges and (rows := observation.rows[product.unit]).size
        ]
        sources = {reader.product.source for reader in readers}
        passing = [observation.tensors[name] for name in tie.tensors if name in coded - sources]
        choice = _best_factors(readers, passing, tie.channels)
        if choice is not None:
            factors, fmt, before, after = choice
            changed |= scaled_constants(changed, tie, factors)
            technique = "migration" if tie.normed else "equalisation"
            compensations.append(Compensation(technique, tie.tensors[0], fmt, before, after))
    if not compensations:
        return model, ()
    new = {name: array for name, array in changed.items() if array is not model.constants[name]}
    return with_constants(model, new), tuple(compensations)


def _best_factors(
    readers: Sequence[TiedReader], passing: Sequence[TensorStatistics], channels: int
) -> tuple[Array, str, float, float] | None:
    """Return what to divide channels by, and of the format that gains most its name and the error before and
    after; None where it helps too little, or harms some format: all share one model.

    Args:
        passing: tied tensors that are rounded on their way to the readers, such as summands.
    """
    if not readers:
        return None
    plain = _errors(readers, passing, np.ones(channels, np.float32))
    best: tuple[Array, str, float, float] | None = None
    least = np.log(LEAST_GAIN)
    for factors in _candidates(readers, channels):
        errors = _errors(readers, passing, factors)
        gains = {fmt: np.log(max(error, _TINY) / max(plain[fmt], _TINY)) for fmt, error in errors.items()}
        mean = sum(gains.values()) / len(gains)
        if mean < least and max(gains.values()) <= 0:
            least, fmt = mean, min(gains, key=lambda name: gains[name])
            best = factors, fmt, plain[fmt], errors[fmt]
    return best


def _errors(
    readers: Sequence[TiedReader], passing: Sequence[TensorStatistics], factors: Array
) -> dict[str, float]:
    """Return the error in each format, of all readers together."""
    totals: dict[str, float] = {}
    noise = sum(_noise(tensor, factors) for tensor in passing)
    for reader in readers:
        on_the_way = float(np.sum(noise * reader.sensitivity(len(factors))))
        static = {judge.format for judge in reader.judges if judge.static}
        for fmt, error in reader.errors(factors).items():
            totals[fmt] = totals.get(fmt, 0.0) + error + (on_the_way if fmt in static else 0.0)
    return totals


def _noise(tensor: TensorStatistics, factors: Array) -> Array:
    """Return the mean squared error (channels,) of a tensor that is rounded while divided by factors."""
    span = float((tensor.channel_high / factors).max()) - float((tensor.channel_low / factors).min())
    return np.asarray(np.square(span / LEVELS * factors) / 12, np.float32)


def _candidates(readers: Sequence[TiedReader], channels: int) -> Iterator[Array]:
    static = any(judge.static for reader in readers for judge in reader.judges)
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
