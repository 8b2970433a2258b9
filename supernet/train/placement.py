"""Where a training computes, and with which numbers."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.host import cpu_flags, cpu_model, instruction_set
from supernet.train.config import TrainConfig
from supernet.train.parallel import World

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BF16 = {"avx512_bf16", "amx_bf16"}  # flags of processors that multiply it
_DENSE = 0.98  # share of a network's multiply-adds that depthwise convolutions leave, at least, for it to pay


@dataclass(frozen=True)
class Placement:
    """A device, and the type that autocast computes convolutions in; None for fp32 throughout."""

    device: torch.device
    dtype: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of forward passes."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Return what keeps small gradients of fp16 from becoming 0; does nothing for other types."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose_placement(config: TrainConfig, world: World) -> Placement:
    """Return what `config.device` and `config.amp` mean on this machine.

    Raises:
        TrilobitError: there is no such device, or more processes than GPUs.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise TrilobitError(
            f"train.device = 'cuda', but torch {torch.__version__} sees no GPU here; use 'auto' or 'cpu'"
        )
    if config.device == "cpu" or not available:
        return Placement(torch.device("cpu"), _TYPES.get(config.amp))
    count = torch.cuda.device_count()
    if world.local_rank >= count:
        raise TrilobitError(
            f"process {world.local_rank + 1} on this machine has no GPU of its own, there are {count}; start "
            f"torchrun with --nproc-per-node {count}, or train with train.device = 'cpu'"
        )
    automatic = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    dtype = automatic if config.amp == "auto" else _TYPES.get(config.amp)
    return Placement(torch.device("cuda", world.local_rank), dtype)


def prefers_bf16(workload: Workload) -> bool:
    """Return whether this processor multiplies bf16 and nearly all that a network multiplies are dense
    products: depthwise convolutions take twice as long in bf16 as in fp32.
    """
    depthwise = sum(macs(layer) for layer in workload.layers if layer.depthwise)
    return bool(_BF16 & cpu_flags()) and depthwise <= (1 - _DENSE) * sum(map(macs, workload.layers))


def machine_of(placement: Placement, threads: int) -> dict[str, Any]:
    """Return what computes there, for people who read what a training took."""
    if placement.device.type == "cuda":
        return {"processor": torch.cuda.get_device_name(placement.device)}
    return {"processor": cpu_model(), "instruction_set": instruction_set(), "threads": threads}
