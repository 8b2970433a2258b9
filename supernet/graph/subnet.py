"""A subnet on its own: the fp32 workload, lowered, as the program, one module per layer with a weight."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from supernet.graph.operations import Constants, computed, execute
from supernet.layers.stored import Prefixed


class Subnet(nn.Module):
    """Runs `workload` (fp32 throughout) with `layers`, one module per layer that has stored numbers, by the
    names that they have in the lowered workload.
    """

    def __init__(self, workload: Workload, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.workload = lower(workload)
        self.layers = nn.ModuleDict({_module_name(name): layer for name, layer in layers.items()})

    def layer(self, name: str) -> nn.Module:
        """Return the module of the layer called `name` in the workload."""
        return self.layers[_module_name(name)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, ..., classes) of images (n, c, h, w) or tokens (n, t)."""
        return self.tensors(x)[-1]

    def tensors(self, x: Tensor) -> list[Tensor]:
        """Return every tensor of the workload, in order: what calibration looks at."""
        work = self.workload

        def step(position: int, x: list[Tensor]) -> Sequence[Tensor]:
            name, layer = work.names[position], work.layers[position]
            if _module_name(name) not in self.layers:
                return computed(layer, x)
            module = self.layer(name)
            if isinstance(module, Prefixed):
                return computed(layer, x, Constants(module.weight, module.bias))
            return (module(x[0].flatten(1) if layer.op == "Gemm" else x[0]),)

        return execute(work, (x,), step)


def recalibrate(subnet: Subnet, batches: Iterable[Tensor]) -> None:
    """Set the batch-norm statistics to the mean over `batches` of (n, c, h, w) images, and leave the subnet
    in eval mode.

    A subnet's statistics differ from every other's, so this precedes any evaluation (Yu & Huang 2019,
    arXiv:1903.05134). Without batch norms there are none, and `batches` are not looked at.
    """
    subnet.eval()
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    subnet.train()
    with torch.no_grad():
        for images in batches:
            subnet(images)
    subnet.eval()


def _module_name(name: str) -> str:
    return name.replace(".", "_")  # torch does not allow dots in module names
