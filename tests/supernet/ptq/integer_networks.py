"""Small trained-like networks, and their integer-only forms in plain numpy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hw_profiles.reference.integer_ops import run_network
from nas.export.library.to_tvm import unit_numbers
from supernet.data.tokens import BYTES, PADDING
from supernet.families.cifar_resnet import CifarResNet
from supernet.families.encoder import EncoderFamily, TokenEncoderFamily
from supernet.families.family import Family
from supernet.families.vit import ViTFamily
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.subnet import Subnet, recalibrate

VIT = ViTFamily(
    name="tiny-vit",
    resolutions=(12,),
    patch=4,
    widths=(16,),
    depths=(1,),
    heads=(2,),
    head_width=8,
    percents=(150,),
    in_channels=1,
    classes=10,
)
RESNET = CifarResNet("tiny-resnet", depth=2, in_channels=3, classes=10, widths=(8, 16), resolutions=(10,))
ENCODER = TokenEncoderFamily(
    name="tiny-encoder",
    lengths=(6,),
    widths=(16,),
    depths=(1,),
    heads=(2,),
    head_width=8,
    hidden=(24,),
    in_channels=30,
    classes=5,
)
TEXTS = EncoderFamily(
    name="tiny-texts",
    lengths=(7,),
    widths=(16,),
    depths=(1,),
    heads=(2,),
    head_width=8,
    hidden=(24,),
    in_channels=BYTES + 1,
    classes=5,
)
FAMILIES = {family.name: family for family in (VIT, RESNET, ENCODER, TEXTS)}


def subnet_of(family: Family) -> Subnet:
    """Return the largest network, with weights of a trained one's magnitude."""
    generator = torch.Generator().manual_seed(0)
    subnet = family.extract(family.supernet(rng=np.random.default_rng(0)), family.extreme("largest"))
    with torch.no_grad():
        for module in subnet.modules():
            if isinstance(module, nn.Linear):
                fan_in = module.weight.shape[1]
                module.weight.copy_(1.5 * torch.randn(module.weight.shape, generator=generator) / fan_in**0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1.0)
    recalibrate(subnet, [examples(family, 64)])
    return subnet.eval()


def examples(family: Family, count: int, seed: int = 1) -> Tensor:
    """Return made-up images, or ids."""
    generator = torch.Generator().manual_seed(seed)
    size = family.resolution(family.extreme("largest"))
    if isinstance(family, EncoderFamily):
        ids = torch.randint(0, min(family.in_channels, BYTES), (count, size), generator=generator)
        if family.padded:
            ends = torch.randint(1, size + 1, (count, 1), generator=generator)
            ids[torch.arange(size) >= ends] = PADDING
        return ids
    channels = 1 if family is VIT else 3
    return torch.randn(count, channels, size, size, generator=generator)


def by_arithmetic(network: QuantizedGraph, inputs: Tensor) -> NDArray[np.float32]:
    """Return what plain numpy says of each example."""
    numbers = unit_numbers(network)
    stored = [x.transpose(1, 2, 0) if x.ndim == 3 else x for x in inputs.numpy()]
    return np.array([run_network(network.workload, numbers, x) for x in stored])
