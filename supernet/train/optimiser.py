"""What changes the weights: the optimiser that a configuration names, and the learning rate of each of its
groups.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supernet.derive.network import ElasticNet
from supernet.graph.subnet import Subnet
from supernet.layers.elastic import ConvNorm, ElasticConvNorm
from supernet.train.config import TrainConfig


@dataclass(frozen=True)
class Optimisation:
    """An optimiser, and what its groups' learning rates rise to.

    Attributes:
        peaks: of each group.
    """

    optimiser: torch.optim.Optimizer
    peaks: tuple[float, ...]

    def set_rate(self, factor: float) -> None:
        """Set the learning rates to this part of their peaks."""
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor


def make_optimisation(net: nn.Module, config: TrainConfig) -> Optimisation:
    """Return what trains the parameters of `net` that require gradients, which must be on their device.

    Weights of more than one dimension decay; biases and batch norms do not.
    """
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if config.optimiser == "muon":
        filters = [p for p in dense_filters(net) if p.requires_grad]
        known = {id(p) for p in filters}
        rest = {name: p for name, p in trained.items() if id(p) not in known}
        groups, peaks = _groups(rest, config, config.rest_rate)
        muon = FiltersAndRest(filters, groups, config.filter_momentum, config.momentum)
        return Optimisation(muon, (config.learning_rate, *peaks))
    groups, peaks = _groups(trained, config, config.learning_rate)
    if config.optimiser == "sgd":
        return Optimisation(_sgd(groups, config.momentum), peaks)
    return Optimisation(torch.optim.AdamW(groups, lr=config.learning_rate), peaks)


def dense_filters(net: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the filters of convolutions over all channels that a batch norm follows, but for the one that
    reads the image, of a supernet or of a network by itself.
    """
    stem = _stem(net)
    for module in net.modules():
        if isinstance(module, ElasticConvNorm) and not module.depthwise and module is not stem:
            yield module.weight
        if isinstance(module, ConvNorm) and module.conv.groups == 1 and module is not stem:
            yield module.conv.get_parameter("weight")


def _stem(net: nn.Module) -> nn.Module:
    """Return the layer that reads the image, or the first that has stored numbers."""
    if isinstance(net, ElasticNet):
        return net.get_submodule(net.ends[0])
    [subnet] = (module for module in net.modules() if isinstance(module, Subnet))
    return next(iter(subnet.layers.values()))


def _groups(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig, peak: float
) -> tuple[list[dict[str, Any]], tuple[float, ...]]:
    """Return groups of parameters, those that are not empty, and the peak of each."""
    factor = config.bias_factor
    fast = [p for name, p in parameters.items() if factor != 1 and p.ndim == 1 and name.endswith("bias")]
    known = {id(p) for p in fast}
    weights = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim <= 1 and id(p) not in known]
    groups = [(weights, config.weight_decay, peak), (others, 0.0, peak), (fast, 0.0, peak * factor)]
    listed = [{"params": group, "weight_decay": decay} for group, decay, _ in groups if group]
    return listed, tuple(rate for group, _, rate in groups if group)


class FiltersAndRest(torch.optim.Optimizer):
    """Muon for filters, as matrices (out, in * k * k), and Nesterov's SGD for all other parameters.

    Muon orthogonalises the momentum of a matrix by Newton-Schulz iterations (Jordan et al. 2024). Before
    every step each filter is scaled to the norm sqrt(out), which a batch norm behind it does not notice: so
    the learning rate is the share by which a filter changes, whatever its shape.

    Args:
        filters: (out, in, k, k) each.
        rest: groups of other parameters, as `torch.optim.SGD` takes them.
        filter_momentum, momentum: of the filters and of the rest.
    """

    def __init__(
        self,
        filters: Sequence[nn.Parameter],
        rest: Sequence[dict[str, Any]],
        filter_momentum: float,
        momentum: float,
    ) -> None:
        super().__init__([{"params": list(filters)}, *map(dict, rest)], {"lr": 0.0, "weight_decay": 0.0})
        self._matrices = [(p, as_matrix(p.detach(), like=p)) for p in filters]
        views = [matrix for _, matrix in self._matrices]
        # its own adjustment, sqrt(max(1, out / in)), makes the update's norm sqrt(out) too
        self._muon = torch.optim.Muon(views, lr=0.0, weight_decay=0.0, momentum=filter_momentum)
        self._sgd = _sgd([*map(dict, rest)], momentum)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the learning rates of `param_groups`."""
        for outer, inner in zip(self.param_groups, self._inner_groups(), strict=True):
            inner["lr"] = outer["lr"]
        for filters, matrix in self._matrices:
            matrix.grad = None if filters.grad is None else as_matrix(filters.grad, like=filters)
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm().clamp_min(1e-12))
        self._muon.step()  # type: ignore[no-untyped-call]
        self._sgd.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimisers."""
        return {"muon": self._muon.state_dict(), "sgd": self._sgd.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._muon.load_state_dict(state_dict["muon"])
        self._sgd.load_state_dict(state_dict["sgd"])
        for outer, inner in zip(self.param_groups, self._inner_groups(), strict=True):
            outer["lr"] = inner["lr"]

    def _inner_groups(self) -> list[dict[str, Any]]:
        return [*self._muon.param_groups, *self._sgd.param_groups]


def _sgd(groups: list[dict[str, Any]], momentum: float) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0)


def as_matrix(x: Tensor, *, like: Tensor) -> Tensor:
    """Return (out, in, k, k) as (out, in * k * k), its columns in the order in which `like` lies in memory: a
    view of `like` itself. The order of columns does not matter to orthogonalisation.
    """
    if like.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)
