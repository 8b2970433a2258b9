"""The learned scales of a supernet: one set for all of its subnets and policies.

Every weighted layer has one scale per output channel, that of its stored 8-bit codes, from which all
widths follow by Double Rounding. Scales of channels survive the folding of batch norm exactly: it multiplies
each by |factor|, and flips the signs of the codes where the factor is negative. Every tensor that some policy
rounds has a scale and an offset of its own for each activation format.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import Int, NearestCode, QuantParams, in_integers, needs_scale
from hw_profiles.graph.layer import INPUT, Layer
from hw_profiles.graph.lowering import CURVES, lower
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_sums import IntegerSums
from supernet.families.family import Family
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.loading import (
    load_activation_format,
    load_format,
    load_weight_format,
)
from supernet.graph.executor import (
    LayeredNet,
    Step,
    Unquantized,
    batch_normalised,
    run,
    sized_layer,
    tensor_keys,
)
from supernet.qat.double_rounding import requantized, step_ratio, stored_codes
from supernet.qat.lsq import (
    SMALLEST_SCALE,
    fake_quantize_codes,
    fake_quantize_tensor,
    fake_quantize_weight,
    initial_weight_scale,
    zero_point,
)
from supernet.space.space import Candidate

DRAWN = 64  # random networks looked at to learn which tensors there are
SAMPLED = 1 << 14  # values per tensor and network that a first scale is found on
SHRINKS = np.linspace(0.2, 1.0, 33)  # shares of the range tried for it
CURVE_END = 3.0  # h-swish and h-sigmoid are curved from -3 to 3, and 0 below
RELU6_END = 6.0
BIAS_CODES = 2.0**30  # a bias takes at most so many steps of the accumulator: half of what 32 bits hold
POSITIVE = ("relu", "relu6", "hsigmoid")


@dataclass(frozen=True)
class TensorKind:
    """What is known of a tensor before anything is measured.

    Attributes:
        unsigned: nothing in it is negative: its zero point is 0, which makes clipping to its codes the ReLU.
        end: the largest value that its codes may reach, since clipping to them is a ReLU6; 0 for none.
    """

    unsigned: bool
    end: float = 0.0


@dataclass(frozen=True)
class Structure:
    """What has scales: every tensor in every format, since a conversion may stand behind any layer.

    Attributes:
        weights: the largest spec of each weighted layer, by name.
        tensors: by key, see `supernet.graph.executor.tensor_keys`.
        formats: the integer activation formats.
    """

    weights: Mapping[str, Layer]
    tensors: Mapping[str, TensorKind]
    formats: tuple[str, ...]


class LearnedQuantizers(nn.Module):
    """Scales of weights and tensors, trainable; see `supernet.graph.executor.Quantizers`.

    Scales are stored as logarithms, so that they stay positive and one learning rate suits all magnitudes.

    Args:
        sums: of the device that networks are rounded for.
    """

    def __init__(self, structure: Structure, sums: IntegerSums = IntegerSums.EXACT) -> None:
        super().__init__()
        self.structure, self.sums = structure, sums
        self.weight_scales = nn.ParameterDict(
            {
                _slot(name): nn.Parameter(torch.zeros(s.stored_shape[0]))
                for name, s in structure.weights.items()
            }
        )
        tensors = [(key, fmt) for key in structure.tensors for fmt in structure.formats]
        self.tensor_scales = nn.ParameterDict(
            {_slot(key, fmt): nn.Parameter(torch.zeros(())) for key, fmt in tensors}
        )
        self.offsets = nn.ParameterDict(
            {
                _slot(key, fmt): nn.Parameter(torch.zeros(()))
                for key, fmt in tensors
                if not structure.tensors[key].unsigned and load_activation_format(fmt).integer
            }
        )

    def weight(self, name: str, weight: Tensor, fmt: str) -> Tensor:
        """Return a weight (out, ...) rounded to `fmt`, as real values."""
        weight_format = load_weight_format(fmt, self.sums)
        if not weight_format.needs_scale:
            return weight
        if not weight_format.on_ladder:
            return weight_format.fake_quantize(weight)
        return fake_quantize_weight(weight, self.weight_scale(name, len(weight)), weight_format.bits)

    def weight_bits(self, fmt: str) -> int:
        """Return how many bits the weight codes of a format have."""
        return load_weight_format(fmt, self.sums).bits

    def tensor(self, key: str, x: Tensor, fmt: str) -> Tensor:
        """Return a tensor rounded to `fmt`, as real values."""
        (scale, offset), element = self.tensor_range(key, fmt), load_activation_format(fmt).element
        if isinstance(element, Int):
            return fake_quantize_tensor(x, scale, offset, element.largest)
        return fake_quantize_codes(x, scale, NearestCode.of(element))

    def bias(self, step: Step, bias: Tensor, factor: Tensor) -> Tensor:
        """Return a bias (out,) rounded to steps of the accumulator; as it is where the layer computes in
        floating point.

        With few bits those steps are coarse: up to a tenth of a step of the output.
        """
        weight_format = load_weight_format(step.layer.weight_format, self.sums)
        integer = in_integers(step.layer.weight_format, step.layer.in_format)
        rounds = integer and weight_format.on_ladder and step.layer.op != "MatMul"
        if step.source is None or not rounds:
            return bias
        ratio = step_ratio(weight_format.bits)
        scale, _ = self.tensor_range(step.source, step.layer.in_format)
        accumulator = scale * self.weight_scale(step.name, len(bias)) * ratio * factor.abs()
        accumulator = torch.maximum(accumulator, bias.abs() / BIAS_CODES).clamp_min(SMALLEST_SCALE**2)
        return torch.round(bias / accumulator) * accumulator

    def weight_scale(self, name: str, out_channels: int) -> Tensor:
        """Return the (out,) scale of a layer's stored 8-bit codes."""
        logarithm: Tensor = self.weight_scales[_slot(name)]
        return logarithm[:out_channels].exp()

    def tensor_range(self, key: str, fmt: str) -> tuple[Tensor, Tensor]:
        """Return scale and offset of a tensor in `fmt`."""
        slot, end = _slot(key, fmt), self.structure.tensors[key].end
        scale = self.tensor_scales[slot].exp()
        if end:
            scale = scale.clamp_max(end / _largest(fmt))
        return scale, self.offsets[slot] if slot in self.offsets else torch.zeros_like(scale)

    def codes(self, name: str, weight: Tensor, fmt: str) -> tuple[Tensor, Tensor]:
        """Return int8 codes of a weight (out, ...) in an integer format, and each channel's scale (out,)."""
        bits, scale = self.weight_bits(fmt), self.weight_scale(name, len(weight))
        stored = stored_codes(weight, scale.view(-1, *(1,) * (weight.ndim - 1)))
        return requantized(stored, bits), scale * step_ratio(bits)

    def params(self, key: str, fmt: str) -> QuantParams:
        """Return what a device needs to know of a tensor in `fmt`."""
        (scale, offset), element = self.tensor_range(key, fmt), load_activation_format(fmt).element
        if not isinstance(element, Int):
            return QuantParams(scale.item(), 0)
        zero = int(zero_point(scale, offset, element.largest).item())
        return QuantParams(scale.item(), zero, element.largest)

    def set_tensor(self, key: str, fmt: str, params: QuantParams) -> None:
        """Set what was learned of a tensor in `fmt`."""
        slot = _slot(key, fmt)
        with torch.no_grad():
            self.tensor_scales[slot].fill_(np.log(params.scale))
            if slot in self.offsets:
                self.offsets[slot].fill_(-params.zero_point * params.scale)


def find_structure(family: Family) -> Structure:
    """Find what has scales in a family's networks: of its extremes, and of some random networks besides."""
    space = family.space()
    rows = space.sample(DRAWN, rng=np.random.default_rng(0))
    candidates = [*family.extremes().values(), *map(space.candidate, rows)]
    weights: dict[str, Layer] = {}
    tensors: dict[str, TensorKind] = {}
    formats = set[str]()
    for candidate in candidates:
        work = lower(family.workload(candidate))
        formats |= set(filter(needs_scale, (layer.out_format for layer in work.layers)))
        tensors |= tensor_kinds(work)
        for name, layer in zip(work.names, work.layers, strict=True):
            if layer.weighted and (name not in weights or _sizes(layer) > _sizes(weights[name])):
                weights[name] = layer
    return Structure(weights, tensors, tuple(sorted(formats)))


def integer_extremes(family: Family) -> tuple[Candidate, ...]:
    """Return the largest and the smallest architecture, in some policy that is integer throughout.

    Raises:
        TrilobitError: the space has none.
    """
    candidates = family.extremes().items()
    extremes = [
        next((c for name, c in candidates if name.size == size and _integer(family, c)), None)
        for size in ("largest", "smallest")
    ]
    quantized = tuple(candidate for candidate in extremes if candidate is not None)
    if len(quantized) < len(extremes):
        raise TrilobitError(
            f"{family.name} has no integer formats to train for; give it some, such as fp32,int8,int4"
        )
    return quantized


def _integer(family: Family, candidate: Candidate) -> bool:
    layers = lower(family.workload(candidate)).layers
    return all(load_format(layer.weight_format).weight.needs_scale for layer in layers if layer.weighted)


def tensor_kinds(work: Workload) -> dict[str, TensorKind]:
    """Return the kind of every integer tensor of a lowered workload, by key."""
    unsigned: list[bool] = []
    for layer, sources in zip(work.layers, work.inputs, strict=True):
        passed = (
            "weight" not in layer.values
            and layer.kind != "act"
            and all(i != INPUT and unsigned[i] for i in sources)
        )
        unsigned.append(layer.nonlinearity in POSITIVE or (layer.nonlinearity == "none" and passed))
    ends = _relu6(work)
    keys = enumerate(tensor_keys(work))
    return {
        key: TensorKind(unsigned[i], RELU6_END if key in ends else 0.0) for i, key in keys if key is not None
    }


def new_quantizers(
    structure: Structure,
    net: LayeredNet,
    samples: Iterable[tuple[Workload, Tensor]],
    sums: IntegerSums = IntegerSums.EXACT,
) -> LearnedQuantizers:
    """Return first scales: of weights by LSQ+'s rule, of tensors those of the least squared error.

    Args:
        samples: workloads that between them have every integer tensor, each with images (n, c, h, w).
        sums: of the device that networks are rounded for.

    Raises:
        ValueError: they have not.
    """
    quantizers = LearnedQuantizers(structure, sums)
    with torch.no_grad():
        for name, spec in structure.weights.items():
            weight = sized_layer(net.layer(name), spec).weight
            quantizers.weight_scales[_slot(name)].copy_(initial_weight_scale(weight).log())
    observed: dict[str, list[Tensor]] = {}
    for workload, images in samples:
        for key, values in observed_tensors(net, workload, images).items():
            observed.setdefault(key, []).append(values)
    missing = set(structure.tensors) - set(observed)
    if missing:
        raise ValueError(f"no values were seen of {', '.join(sorted(missing))}")
    for key, parts in observed.items():
        for fmt in structure.formats:
            quantizers.set_tensor(key, fmt, least_error(torch.cat(parts), fmt))
    return quantizers


def observed_tensors(net: LayeredNet, workload: Workload, images: Tensor) -> dict[str, Tensor]:
    """Return some values of every tensor that `workload` rounds, by key, in full precision."""
    work = lower(workload)
    with torch.no_grad():
        tensors = run(net, Unquantized(), work, images, batch_normalised)
    curves = {sources[0]: layer for layer, sources in zip(work.layers, work.inputs, strict=True)
              if layer.kind == "act" and layer.nonlinearity in CURVES}  # fmt: skip
    observed = {}
    for position, key in enumerate(tensor_keys(work)):
        if key is not None:
            values = _spread(tensors[position])
            # what a curve makes 0 or 1 of need not be told apart
            observed[key] = values.clamp(min=-CURVE_END) if position in curves else values
    return observed


def least_error(values: Tensor, fmt: str) -> QuantParams:
    """Return, of the ranges between a fifth and all of that of `values` (n,), the one whose rounding to `fmt`
    has the least squared error."""
    low, high = float(values.min()), float(values.max())
    activation, ranges = load_activation_format(fmt), []
    for shrink in SHRINKS:
        params = activation.params(low * shrink, high * shrink)
        error = float(((_rounded(values, params, activation) - values) ** 2).sum())
        ranges.append((error, -shrink, params))
    return min(ranges, key=lambda range_: range_[:2])[2]


def _rounded(values: Tensor, params: QuantParams, activation: ActivationFormat) -> Tensor:
    """Return the real values that the codes of `values` stand for."""
    if not isinstance(activation.element, Int):
        return fake_quantize_codes(values, torch.tensor(params.scale), NearestCode.of(activation.element))
    codes = torch.round(values / params.scale) + params.zero_point
    return (codes.clamp_(0, params.largest) - params.zero_point) * params.scale


def _spread(tensor: Tensor) -> Tensor:
    """At most `SAMPLED` values, evenly spread over the tensor, its extremes among them."""
    flat = tensor.flatten()
    stride = max(1, len(flat) // SAMPLED)
    return torch.cat((flat[::stride], torch.stack(torch.aminmax(flat))))


def _relu6(work: Workload) -> set[str]:
    """Keys of tensors whose codes must end at 6."""
    return {
        name
        for name, layer in zip(work.names, work.layers, strict=True)
        if layer.nonlinearity == "relu6" and layer.kind != "act"
    }


def _sizes(layer: Layer) -> tuple[int, ...]:
    """Return what grows with a layer: outputs, inputs of all groups, kernel."""
    outputs, inputs, *kernel = layer.stored_shape
    return outputs, int(layer.inputs[0].shape[1]) if layer.op == "Conv" else inputs, *kernel


def _largest(fmt: str) -> float:
    return load_activation_format(fmt).element.largest


def _slot(*names: str) -> str:
    """Torch allows no dots in names of parameters."""
    return ":".join(names).replace(".", "/")
