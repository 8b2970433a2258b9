"""A subnet on its own: the fp32 workload, lowered, as the program, one torch module per weighted layer."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hw_profiles.graph.layer import INPUT
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from supernet.layers.activation import ACTIVATE
from supernet.layers.pooling import POOL


class Subnet(nn.Module):
    """Runs `workload` (fp32 throughout) with `layers`, one module per convolution and linear layer, by the
    names that they have in the lowered workload.
    """

    def __init__(self, workload: Workload, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.workload = lower(workload)
        self.layers = nn.ModuleDict({_module_name(name): layer for name, layer in layers.items()})

    def layer(self, name: str) -> nn.Module:
        """The module of the layer called `name` in the workload."""
        return self.layers[_module_name(name)]

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> logits (n, classes)."""
        return self.tensors(x)[-1]

    def tensors(self, x: Tensor) -> list[Tensor]:
        """The output of every layer of the workload, in order: what calibration looks at."""
        tensors: list[Tensor] = []
        for name, spec, inputs in zip(
            self.workload.names, self.workload.layers, self.workload.inputs, strict=True
        ):
            sources = [x if i == INPUT else tensors[i] for i in inputs]
            match spec.kind:
                case "add":
                    y = ACTIVATE[spec.nonlinearity](sources[0] + sources[1])
                case "pool":
                    y = sources[0].mean((2, 3), keepdim=True)
                case "maxpool" | "avgpool":
                    y = POOL[spec.kind](sources[0], spec.kernel, spec.stride)
                case "mul":
                    y = sources[0] * sources[1]
                case "linear":
                    y = self.layer(name)(sources[0].flatten(1))
                case _:
                    y = self.layer(name)(sources[0])
            tensors.append(y)
        return tensors


def recalibrate(subnet: Subnet, batches: Iterable[Tensor]) -> None:
    """Set the batch-norm statistics to the mean over `batches` of (n, c, h, w) images, and leave the subnet
    in eval mode.

    A subnet's statistics differ from every other's, so this precedes any evaluation (Yu & Huang 2019,
    arXiv:1903.05134).
    """
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
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
