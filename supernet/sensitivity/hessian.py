"""How much a layer minds being rounded, and which widths to give to which layer."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from supernet.graph.executor import LayeredNet, Unquantized, forward, sized_layer
from supernet.qat.learned import LearnedQuantizers
from supernet.qat.lsq import fake_quantize_weight
from supernet.solvers.multiple_choice import InfeasibleError, Limit, Problem, Term, solve

Loss = Callable[[Tensor, Tensor], Tensor]  # of logits and targets


class _Weights(Unquantized):
    """Remembers the weights that a forward used."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def weight(self, name: str, weight: Tensor, fmt: str) -> Tensor:
        self.seen[name] = weight if weight.requires_grad else weight.detach().requires_grad_()
        return self.seen[name]


def hessian_traces(
    net: LayeredNet,
    workload: Workload,
    images: Tensor,
    targets: Tensor,
    *,
    probes: int,
    seed: int,
    loss: Loss = torch.nn.functional.cross_entropy,
) -> dict[str, float]:
    """Estimate the mean eigenvalue of the loss's Hessian in each layer's weights: its trace over the number
    of weights.

    Hutchinson's estimate from `probes` random sign vectors (Dong et al. 2020, arXiv:1911.03852, section 3.2),
    of `loss` on images (n, c, h, w) with `targets`, labels (n,) for the default, batch norm in training mode.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = _Weights()
    logits = forward(net, weights, workload, images)
    value = loss(logits, targets)
    names, tensors = list(weights.seen), list(weights.seen.values())
    slopes = torch.autograd.grad(value, tensors, create_graph=True)
    totals = dict.fromkeys(names, 0.0)
    for _ in range(probes):
        signs = [_signs(tensor, generator) for tensor in tensors]
        product = torch.stack([(slope * sign).sum() for slope, sign in zip(slopes, signs, strict=True)]).sum()
        curved = torch.autograd.grad(product, tensors, retain_graph=True)
        for name, sign, curve in zip(names, signs, curved, strict=True):
            totals[name] += float((sign * curve).mean()) / probes
    return totals


def rounding_errors(
    net: LayeredNet, quantizers: LearnedQuantizers, layers: Mapping[str, Layer], bits: int
) -> dict[str, float]:
    """Return the squared error |Q(W) - W|^2 of each layer's weights at one width."""
    errors = {}
    with torch.no_grad():
        for name, layer in layers.items():
            weight = sized_layer(net.layer(name), layer).weight
            scale = quantizers.weight_scale(name, len(weight))
            errors[name] = float(((fake_quantize_weight(weight, scale, bits) - weight) ** 2).sum())
    return errors


def allocate(
    widths: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], total: int
) -> NDArray[np.int64]:
    """Choose one width per layer at the least cost, whose widths add up to `total`, exactly.

    Args:
        widths: of each layer, the widths it can have.
        costs: of each layer, the cost of each of them.
        total: what the chosen widths must add up to: layers times the average width.

    Returns:
        (layers,) the index chosen for each layer.

    Raises:
        ValueError: no choice adds up to `total`.

    >>> allocate([(8, 4), (8, 4)], [(0.0, 1.0), (0.0, 3.0)], 12)
    array([1, 0])
    """
    average = Limit("total width", _terms(widths), upper=total, lower=total)
    try:
        return solve(Problem(tuple(map(len, widths)), _terms(costs), (average,))).chosen
    except InfeasibleError:
        raise ValueError(f"no choice of widths adds up to {total}") from None


def _terms(values: Sequence[Sequence[float]]) -> tuple[Term, ...]:
    """A sum that every layer decides by itself."""
    return tuple(Term((layer,), np.array(costs, np.float64)) for layer, costs in enumerate(values))


def _signs(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """+1 or -1, drawn on the CPU, so that every device has the same."""
    return (torch.randint(0, 2, tensor.shape, generator=generator) * 2.0 - 1.0).to(tensor.device)


def largest_layers(workload: Workload) -> dict[str, Layer]:
    """Return weighted layers of a workload by name, once it is lowered."""
    work = lower(workload)
    return {n: layer for n, layer in zip(work.names, work.layers, strict=True) if layer.weighted}
