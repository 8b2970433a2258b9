"""A systolic array of fusible multipliers, computed and not measured: cycles and joules from its geometry.

An array of `rows` x `columns` fusion units multiplies `max_bits` numbers; narrower ones share a unit, a whole
number of them per side (6 bits gain nothing over 8). Operands and partial sums are tiled into double-buffered
memories; the tiling and the order of its loops are those of fewest cycles, found by trying all
(Sharma et al. 2018, Bit Fusion, arXiv:1712.01507, and the authors' simulator).

    cycles = max(computing, moving the middle tiles) + moving the first and the last
"""

import itertools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import in_integers, is_integer, is_known, tensor_bits, weight_bits
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.analytical.untimed import UntimedDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Job

WIDTHS = (2, 4, 6, 8)  # bits that the array can compute in; others run as the next wider ones
FP32_BITS = 32
UNITS = {
    "rows": "fusion units",
    "columns": "fusion units",
    "max_bits": "bit",
    "min_bits": "bit",
    "accumulator_bits": "bit",
    "weight_buffer": "byte",
    "activation_buffer": "byte",
    "output_buffer": "byte",
    "bus_width": "bit/cycle",
    "clock": "Hz",
    "depthwise_block": "channels",
    "cycle_energy": "J",
    "bit_energy": "J",
}
REAL = ("clock", "cycle_energy", "bit_energy")  # every other figure is a whole number
LOOPS = ("width", "height", "inputs", "outputs")
INDEXED = {  # which loops change the part of an operand that is needed
    "activations": ("width", "height", "inputs"),
    "weights": ("inputs", "outputs"),
    "outputs": ("width", "height", "outputs"),
}

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Accelerator:
    """An array and its memories.

    Attributes:
        name: file-name-safe.
        rows, columns: fusion units along input and output channels.
        max_bits, min_bits: widest and narrowest operand of one fusion unit.
        accumulator_bits: width of a partial sum, in which outputs are moved.
        weight_buffer, activation_buffer, output_buffer: bytes, of which half are filled while the other half
            is used.
        bus_width: bits moved from or to memory in a cycle.
        clock: cycles a second.
        depthwise_block: channels per fusion factor that a depthwise convolution takes at once, as a dense
            convolution of so many channels.
        cycle_energy: joules of a computing cycle, on-chip buffers included.
        bit_energy: joules of moving one bit between memory and a buffer.
        energy_source: where the joules come from.
    """

    name: str
    rows: int
    columns: int
    max_bits: int
    min_bits: int
    accumulator_bits: int
    weight_buffer: int
    activation_buffer: int
    output_buffer: int
    bus_width: int
    clock: float
    depthwise_block: int
    cycle_energy: float
    bit_energy: float
    energy_source: str

    def fused(self, weight_bits: int, activation_bits: int) -> int:
        """Return products of one fusion unit in a cycle: whole operands only, so that 6 bits take the room of
        8.
        """
        sides = (self.max_bits // max(bits, self.min_bits) for bits in (weight_bits, activation_bits))
        return math.prod(sides)

    def energy_j(self, computing: float, moved_bits: float) -> float:
        """Return joules of so many computing cycles and so many moved bits."""
        return computing * self.cycle_energy + moved_bits * self.bit_energy


@dataclass(frozen=True)
class Cost:
    """Of a layer: `cycles` in all, `computing` of them the array is busy; `moved_bits` from and to memory."""

    cycles: float
    computing: float
    moved_bits: float

    def times(self, n: int) -> "Cost":
        """Return `n` such layers one after the other."""
        return Cost(n * self.cycles, n * self.computing, n * self.moved_bits)


@dataclass(frozen=True)
class Convolution:
    """A dense convolution: channels, output map, and bits of its operands."""

    inputs: int
    outputs: int
    height: int
    width: int
    kernel: int
    stride: int
    weight_bits: int
    activation_bits: int


# -- devices as files ----------------------------------------------------


def known_devices() -> tuple[str, ...]:
    """Return the names of the accelerators that come with Trilobit."""
    folder = resources.files("hw_profiles.devices")
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml")))


def load_accelerator(device: str | Path) -> Accelerator:
    """Return a known accelerator by name, or one from a TOML file of the same form.

    Raises:
        TrilobitError: no such device or file, or a figure is missing, unknown, without source or no number.
    """
    name = str(device)
    if name in known_devices():
        text = (resources.files("hw_profiles.devices") / f"{name}.toml").read_text()
    elif name.endswith(".toml") and Path(name).is_file():
        text = Path(name).read_text()
    else:
        raise TrilobitError(
            f"unknown accelerator {name!r}; known: {', '.join(known_devices())}, or the path of a .toml file"
        )
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrilobitError(f"{name}: not TOML ({error}); see hw_profiles/devices/bitfusion.toml") from None
    return _accelerator(name, document)


def _accelerator(file: str, document: Mapping[str, Any]) -> Accelerator:
    required, present = {"name", *UNITS}, set(document)
    if required != present:
        wrong = [f"missing: {', '.join(sorted(required - present))}"] * bool(required - present)
        wrong += [f"unknown: {', '.join(sorted(present - required))}"] * bool(present - required)
        raise TrilobitError(f"{file}: {'; '.join(wrong)}; see hw_profiles/devices/bitfusion.toml")
    name = document["name"]
    if not (isinstance(name, str) and name.isascii() and name == Path(name).name and " " not in name):
        raise TrilobitError(f"{file}: name {name!r}; it must do as a file name: ASCII, no space, no slash")
    figures = {key: _figure(file, key, document[key]) for key in UNITS}
    source = document["bit_energy"]["source"]
    return Accelerator(name=name, **figures, energy_source=" ".join(source.split()))


def _figure(file: str, key: str, entry: Any) -> Any:
    if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source"}:
        raise TrilobitError(f"{file}: {key} needs exactly value, unit and source")
    value, kinds = entry["value"], (int, float) if key in REAL else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
        kind = "number" if key in REAL else "whole number"
        raise TrilobitError(f"{file}: {key} = {value!r}; it must be a {kind} above 0, in {UNITS[key]}")
    if entry["unit"] != UNITS[key]:
        raise TrilobitError(f"{file}: {key} is in {entry['unit']!r}; write it in {UNITS[key]!r}")
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise TrilobitError(f"{file}: {key} has no source; say where {value!r} comes from")
    return value


# -- one convolution -----------------------------------------------------


def _tiles(n: int) -> NDArray[np.int64]:
    """Return powers of two up to `n`, and `n`."""
    return np.unique(np.minimum(2 ** np.arange(max(n - 1, 0).bit_length() + 1), n))


def _ceil(a: Any, b: Any) -> Any:
    return -(-a // b)


def _tilings(device: Accelerator, conv: Convolution) -> dict[str, NDArray[np.int64]]:
    """Return tile sizes along every loop, (t,) each: all combinations; maps are tiled squarely."""
    columns = device.columns
    outputs = np.unique(np.minimum(_tiles(_ceil(conv.outputs, columns)) * columns, conv.outputs))
    square, inputs, outputs = (
        grid.ravel()
        for grid in np.meshgrid(
            _tiles(max(conv.height, conv.width)), _tiles(conv.inputs), outputs, indexing="ij"
        )
    )
    sizes = (np.minimum(square, conv.width), np.minimum(square, conv.height), inputs, outputs)
    return dict(zip(LOOPS, sizes, strict=True))


def _tile_bits(device: Accelerator, conv: Convolution, tile: Mapping[str, Any]) -> dict[str, Numbers]:
    """Return bits of one tile of every operand, (t,) each."""
    reach = [conv.kernel + (tile[side] - 1) * conv.stride for side in ("width", "height")]
    bits = {
        "activations": reach[0] * reach[1] * tile["inputs"] * conv.activation_bits,
        "weights": conv.kernel**2 * tile["inputs"] * tile["outputs"] * conv.weight_bits,
        "outputs": tile["width"] * tile["height"] * tile["outputs"] * device.accumulator_bits,
    }
    return {name: np.asarray(value, np.float64) for name, value in bits.items()}


def _moved(
    tile_bits: Numbers, counts: Mapping[str, Any], order: Sequence[str], indexed: Sequence[str], room: float
) -> tuple[Numbers, Numbers]:
    """Return (t,) bits that an operand moves in all, and those of its largest part that stays in the buffer.

    From the innermost loop outwards, what fits in the buffer is fetched once for all turns that need it.
    """
    total, resident = tile_bits, tile_bits
    fits = np.ones(len(tile_bits), bool)
    for loop in reversed(order):
        if loop in indexed:
            total = total * counts[loop]
            fits = fits & (total <= room)
            resident = np.where(fits, total, resident)
        else:
            total = np.where(fits, total, total * counts[loop])
    return total, resident


@lru_cache(maxsize=1 << 16)
def convolution_cost(device: Accelerator, conv: Convolution) -> Cost | None:
    """Return the cost of the tiling and loop order of fewest cycles, then joules; None where nothing fits the
    buffers.
    """
    tile = _tilings(device, conv)
    bits, fused = _tile_bits(device, conv, tile), device.fused(conv.weight_bits, conv.activation_bits)
    room = {  # bits; half of each buffer is being filled
        "activations": device.activation_buffer * 4.0,
        "weights": device.weight_buffer * 4.0,
        "outputs": device.output_buffer * 4.0,
    }
    fits = np.logical_and.reduce([bits[name] <= room[name] for name in room])
    if not fits.any():
        return None
    tile = {loop: size[fits] for loop, size in tile.items()}
    bits = {name: value[fits] for name, value in bits.items()}
    sizes = dict(zip(LOOPS, (conv.width, conv.height, conv.inputs, conv.outputs), strict=True))
    counts = {loop: _ceil(sizes[loop], tile[loop]) for loop in LOOPS}
    turns = _ceil(tile["outputs"], device.columns) * _ceil(tile["inputs"], device.rows * fused)
    computing = turns * tile["width"] * tile["height"] * conv.kernel**2
    computing = computing * np.prod(list(counts.values()), axis=0)
    costs = [_best(device, computing, bits, counts, order, room) for order in itertools.permutations(LOOPS)]
    return min(costs, key=lambda cost: (cost.cycles, device.energy_j(cost.computing, cost.moved_bits)))


def _best(
    device: Accelerator,
    computing: Numbers,
    bits: Mapping[str, Numbers],
    counts: Mapping[str, Any],
    order: Sequence[str],
    room: Mapping[str, float],
) -> Cost:
    """Return the cheapest tiling in one order of loops."""
    parts = {name: _moved(bits[name], counts, order, INDEXED[name], room[name]) for name in room}
    # partial sums are read before and written after: twice the traffic of their size
    moved = sum((total for total, _ in parts.values()), parts["outputs"][0])
    first, last = sum(resident for _, resident in parts.values()), parts["outputs"][1]
    middle = np.ceil((moved - first - last) / device.bus_width)
    ends = np.ceil(first / device.bus_width) + np.ceil(last / device.bus_width)
    cycles = np.maximum(computing, middle) + ends
    best = np.lexsort((device.cycle_energy * computing + device.bit_energy * moved, cycles))[0]
    return Cost(float(cycles[best]), float(computing[best]), float(moved[best]))


# -- one layer -----------------------------------------------------------


def layer_cost(device: Accelerator, layer: Layer) -> Cost | None:
    """Return cycles, computing cycles and traffic of one layer; None where the array cannot run it."""
    if not is_known(layer.weight_format, layer.activation_format):
        return None
    if layer.op not in COSTS.functions or layer.kind == layer.op:  # windows must be square and centred
        return None
    return COSTS[layer.op](device, layer)


def _product_cost(device: Accelerator, layer: Layer) -> Cost | None:
    """Return the cost of a convolution or linear layer: of the fastest of the ways to compute it."""
    if not in_integers(layer.weight_format, layer.activation_format):
        return None
    if layer.groups > 1 and not (layer.depthwise and layer.out_channels == layer.in_shape[0]):
        return None
    # narrow operands may always run as wider ones: for a few channels that is faster
    bits = weight_bits(layer.weight_format), tensor_bits(layer.activation_format)
    modes = itertools.product(*map(_no_narrower, bits))
    costs = [cost for mode in modes if (cost := _mode_cost(device, layer, *mode)) is not None]
    return min(
        costs, key=lambda way: (way.cycles, device.energy_j(way.computing, way.moved_bits)), default=None
    )


def _no_narrower(bits: int) -> tuple[int, ...]:
    return tuple(width for width in WIDTHS if width >= bits)


def _mode_cost(device: Accelerator, layer: Layer, weight_bits: int, activation_bits: int) -> Cost | None:
    if max(weight_bits, activation_bits) > device.max_bits:
        return None
    channels, (outputs, height, width) = layer.in_shape[0], layer.out_shape
    blocks = 1
    if layer.depthwise:
        block = device.depthwise_block * device.fused(weight_bits, activation_bits)
        blocks, channels, outputs = _ceil(channels, block), block, block
    conv = Convolution(
        channels, outputs, height, width, layer.kernel, layer.stride, weight_bits, activation_bits
    )
    cost = convolution_cost(device, conv)
    return None if cost is None else cost.times(blocks)


def _streaming_cost(device: Accelerator, layer: Layer) -> Cost | None:
    """Return the cost of a layer with nothing to multiply: the layer takes as long as its tensors take to
    move, each in its own format.

    fp32 stands only where a network begins and ends: the array cannot compute in it, so sums and pooling in
    fp32 are none of its layers. A linear layer's fp32 output needs no extra: partial sums are as wide.
    """
    if not is_integer(layer.activation_format):
        return None
    bits = tensor_bits(layer.activation_format)
    if bits > device.max_bits:
        return None
    in_bits, out_bits = (FP32_BITS if fmt == FP32 else bits for fmt in (layer.in_format, layer.out_format))
    moved = math.prod(layer.in_shape) * in_bits * (2 if layer.is_add else 1)
    moved += math.prod(layer.out_shape) * out_bits
    return Cost(float(_ceil(moved, device.bus_width)), 0.0, float(moved))


COSTS: Consumer[Callable[[Accelerator, Layer], Cost | None]] = Consumer(
    "systolic model",
    {
        "Conv": _product_cost,
        "Gemm": _product_cost,
        **dict.fromkeys(
            ("Add", "GlobalAveragePool", "MaxPool", "AveragePool", "QuantizeLinear", "DequantizeLinear"),
            _streaming_cost,
        ),
    },
    otherwise="its time on the array is not modelled",
    refusals={"InvertedResidual": "a whole block is modelled by its layers, not as one"},
)


class SystolicDevice(UntimedDevice):
    """An accelerator from `hw_profiles/devices/`, or from a TOML file of the same form.

    A network takes the sum of its layers: nothing stays on the chip from one layer to the next.

    Raises:
        TrilobitError: no such device, or a file that does not describe one.
    """

    def __init__(self, *, accelerator: str | Path) -> None:
        self.accelerator = load_accelerator(accelerator)

    def describe(self) -> DeviceInfo:
        array = self.accelerator
        return DeviceInfo(
            name=array.name,
            cpu="none",
            engine="analytical",
            engine_version="1",
            provider=f"systolic {array.rows}x{array.columns}",
            energy=f"modelled, {array.energy_source}",
            integer_sums="exact",
            figures="modelled",
        )

    def supports(self, layer: Layer) -> bool:
        return layer_cost(self.accelerator, layer) is not None

    def why_not(self, layer: Layer) -> str:
        if layer.kind == "mbconv":
            return f"{self.describe().name} is modelled layer by layer, not for a whole block (mbconv)"
        return (
            f"{self.describe().name} computes in 2, 4, 6 or 8 bits, not {layer.kind} of "
            f"{layer.weight_format} weights on {layer.activation_format} activations"
        )

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        return [self._compute(job.workload.layers) for job in jobs]

    def _compute(self, layers: Sequence[Layer]) -> Measurement:
        array, latency_s, energy_j = self.accelerator, 0.0, 0.0
        for layer in layers:
            cost = layer_cost(array, layer)
            if cost is None:
                widths = ", ".join(map(str, WIDTHS))
                return Measurement(
                    error=f"{array.name} cannot run {layer.key()!r}; it computes in {widths} bits"
                )
            latency_s += cost.cycles / array.clock
            energy_j += array.energy_j(cost.computing, cost.moved_bits)
        return Measurement((latency_s,), energy_j=energy_j)
