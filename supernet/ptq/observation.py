"""One pass over calibration samples: what values every tensor takes, and some inputs of every product.

ONNX Runtime gives all tensors of interest as further outputs, one sample at a time; where a sample's tensors
are larger than the limit on memory, it runs once for each part of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.ort.runtime import open_session
from supernet.data.samples import Samples
from supernet.imported.model import ImportedModel
from supernet.ptq.histogram import Histogram, histogram_of
from supernet.ptq.product import Product
from supernet.ptq.settings import PtqSettings

Array = NDArray[np.float32]
BYTES = 4  # of a value
FEWEST_ROWS = 64


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What values a tensor takes.

    Attributes:
        low, high: least and largest.
        histogram: how often which.
        channel_low, channel_high: (channels,) of each channel.
    """

    low: float
    high: float
    histogram: Histogram
    channel_low: Array
    channel_high: Array


@dataclass(frozen=True, eq=False)
class Observation:
    """What calibration samples did in the fp32 network.

    Attributes:
        tensors: by name.
        rows: inputs of products (groups, n, k), by unit.
    """

    tensors: Mapping[str, TensorStatistics]
    rows: Mapping[str, Array]


def observe(
    model: ImportedModel,
    calibration: Samples,
    tensors: Sequence[str],
    products: Mapping[str, Product],
    *,
    rng: np.random.Generator,
    settings: PtqSettings,
) -> Observation:
    """Run the network on calibration samples and record what its tensors hold.

    Args:
        tensors: to be observed: floating point, not stored.
        products: whose inputs are sampled, by unit; their sources are among `tensors`.

    Raises:
        TrilobitError: a tensor holds NaN or infinity, or there is no sample.
    """
    if not len(calibration):
        raise TrilobitError("there are no calibration samples; give at least one, better 32 or more")
    takers = _takers(model, tensors, products, len(calibration), rng=rng, settings=settings)
    for part in _parts(model, tensors, settings.activation_bytes):
        computed = tuple(name for name in part if name not in model.inputs)
        session = open_session(with_outputs(model, computed)) if computed else None
        for sample in range(len(calibration)):
            feed = calibration.feed(sample)
            values = session.run(list(computed), feed) if session else []
            for name, value in (*_fed(feed, part), *zip(computed, values, strict=True)):
                takers[name].take(_finite(name, value, calibration, sample))
    return Observation(
        {name: taker.statistics() for name, taker in takers.items()},
        {unit: rows for taker in takers.values() for unit, rows in taker.rows()},
    )


def with_outputs(model: ImportedModel, tensors: Sequence[str]) -> bytes:
    """Return a model's file with these tensors as its outputs."""
    proto = onnx.load_from_string(model.content)
    outputs = [value for value in proto.graph.output if value.name in tensors]
    named = {value.name for value in outputs}
    types = {value.name: value for value in proto.graph.value_info}
    for name in tensors:
        if name not in named:
            element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(model.dtypes[name]))
            outputs.append(types.get(name) or onnx.helper.make_tensor_value_info(name, element, None))
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    data: bytes = proto.SerializeToString()
    return data


def _parts(model: ImportedModel, tensors: Sequence[str], limit: int) -> Iterator[tuple[str, ...]]:
    """Yield tensors that together are within the limit; one that is not, alone."""
    part: list[str] = []
    total = 0
    for name in tensors:
        size = prod(model.shapes[name]) * BYTES
        if part and total + size > limit:
            yield tuple(part)
            part, total = [], 0
        part.append(name)
        total += size
    if part:
        yield tuple(part)


def _fed(feed: Mapping[str, NDArray[np.generic]], part: Sequence[str]) -> list[tuple[str, Any]]:
    return [(name, feed[name]) for name in part if name in feed]


def _finite(name: str, value: Any, calibration: Samples, sample: int) -> Array:
    array = np.asarray(value, np.float32)
    if array.size and not np.isfinite(array.min() + array.max()):
        kind = "NaN" if np.isnan(array).any() else "infinity"
        called = f" ({calibration.names[sample]})" if calibration.names else ""
        raise TrilobitError(
            f"tensor {name!r} holds {kind} for calibration sample {sample}{called}; a network is quantized "
            f"where its values are finite: check the preprocessing, or leave the sample out"
        )
    return array


@dataclass(eq=False)
class _Taker:
    """What is recorded of one tensor while samples pass.

    Attributes:
        axis: of its channels.
        products: that read it, with how many rows each takes of a sample.
        rng: which rows.
    """

    axis: int
    products: Sequence[tuple[Product, int]]
    rng: np.random.Generator
    histogram: Histogram | None = None
    lows: list[Array] = field(default_factory=list)
    highs: list[Array] = field(default_factory=list)
    samples: dict[str, list[Array]] = field(default_factory=dict)

    def take(self, values: Array) -> None:
        if not values.size:
            return
        by_channel = _by_channel(values, self.axis)
        self.lows.append(by_channel.min(axis=(0, 2)))
        self.highs.append(by_channel.max(axis=(0, 2)))
        low, high = float(self.lows[-1].min()), float(self.highs[-1].max())
        if self.histogram is None:
            self.histogram = histogram_of(values, low, high)
        else:
            self.histogram = self.histogram.widened(*_grown(self.histogram, low, high))
            self.histogram = self.histogram.with_values(values)
        for product, n in self.products:
            self.samples.setdefault(product.unit, []).append(product.rows_of(values, n, self.rng))

    def statistics(self) -> TensorStatistics:
        lows, highs = _least(self.lows), -_least([-high for high in self.highs])
        histogram = self.histogram or histogram_of(np.zeros(1), 0.0, 0.0)
        return TensorStatistics(float(lows.min()), float(highs.max()), histogram, lows, highs)

    def rows(self) -> Iterator[tuple[str, Array]]:
        for unit, parts in self.samples.items():
            yield unit, np.concatenate(parts, axis=1)


def _least(rows: Sequence[Array]) -> Array:
    """Return the least of each channel; one number where samples have different many channels."""
    if not rows:
        return np.zeros(1, np.float32)
    if len({len(row) for row in rows}) > 1:
        return np.array([min(row.min() for row in rows)], np.float32)
    return np.asarray(np.min(rows, axis=0), np.float32)


def _by_channel(values: Array, axis: int) -> Array:
    """Return a tensor as (before, channels, behind)."""
    if not values.ndim:
        return values.reshape(1, 1, 1)
    axis = axis % values.ndim if -values.ndim <= axis < values.ndim else values.ndim - 1
    return values.reshape(prod(values.shape[:axis]), values.shape[axis], -1)


def _grown(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Return a range that holds the values too; where it grows it grows by a quarter, so that counts are not
    moved between bins again for every sample."""
    slack = (histogram.high - histogram.low) / 4
    return (
        histogram.low if low >= histogram.low else min(low, histogram.low - slack),
        histogram.high if high <= histogram.high else max(high, histogram.high + slack),
    )


def _takers(
    model: ImportedModel,
    tensors: Sequence[str],
    products: Mapping[str, Product],
    n: int,
    *,
    rng: np.random.Generator,
    settings: PtqSettings,
) -> dict[str, _Taker]:
    """Return what records each tensor; rows are as many as are asked for and fit into memory."""
    budget = settings.memory_bytes // BYTES // max(len(products), 1)
    quotas: dict[str, list[tuple[Product, int]]] = {}
    for product in products.values():
        rows = min(settings.rows, max(budget // product.row_size, FEWEST_ROWS))
        quotas.setdefault(product.source, []).append((product, -(-rows // n)))
    axes = {product.source: product.channel_axis for product in products.values()}
    return {
        name: _Taker(axes.get(name, 1 if len(model.shapes[name]) > 2 else -1), quotas.get(name, ()), own)
        for name, own in zip(tensors, rng.spawn(len(tensors)), strict=True)
    }
