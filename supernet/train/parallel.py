"""Data-parallel training under `torchrun`: every process runs the same subnets on rows of its own, and one
all-reduce per step adds up their gradients.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.train.world import World as World
from supernet.train.world import launched_world as launched_world


def current_world() -> World:
    """Return the processes that this one has joined; itself alone otherwise."""
    if not dist.is_initialized():
        return World()
    rank = dist.get_rank()
    return World(rank, dist.get_world_size(), int(os.environ.get("LOCAL_RANK", rank)))


@contextmanager
def joined_world() -> Iterator[World]:
    """Meet the other processes that torchrun started, over gloo on a CPU and NCCL on GPUs.

    Raises:
        TrilobitError: they cannot be met.
    """
    world = launched_world()
    if world.size == 1:
        yield world
        return
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrilobitError(f"process {world.rank} of {world.size} cannot meet the others: {error}") from None
    yield world
    dist.destroy_process_group()  # not after an error: the others may be gone, and NCCL would wait for them


@contextmanager
def first_alone(world: World) -> Iterator[None]:
    """Run the block in the first process before all others do: what it leaves in a cache is there for
    them.
    """
    if not world.writes:
        meet(world)
    yield
    if world.writes:
        meet(world)


def meet(world: World) -> None:
    """Wait until every process is here.

    Raises:
        TrilobitError: another process is gone.
    """
    if world.size > 1:
        with _others_needed(world):
            dist.all_reduce(torch.zeros(1))


def check_same(world: World, what: str, number: int) -> None:
    """Check that every process has the same `number`, of at most 53 bits.

    Raises:
        TrilobitError: one has another.
    """
    if world.size == 1:
        return
    ends = torch.tensor([number, -number], dtype=torch.float64)
    with _others_needed(world):
        dist.all_reduce(ends, dist.ReduceOp.MAX)
    if ends[0] != -ends[1]:
        raise TrilobitError(
            f"the processes differ in {what}; all need the same run folder, data and configuration"
        )


def mean_over(world: World, value: float) -> float:
    """Return the mean of a number over all processes.

    Raises:
        TrilobitError: another process is gone.
    """
    if world.size == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    with _others_needed(world):
        dist.all_reduce(total)
    return float(total) / world.size


def add_up(world: World, parameters: Sequence[nn.Parameter], values: Sequence[float]) -> list[float]:
    """Replace the gradients by their sums over all processes, and give the sums of `values`: one all-reduce.

    Raises:
        TrilobitError: another process is gone.
    """
    if world.size == 1:
        return list(values)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    extra = torch.tensor(values, dtype=torch.float32, device=gradients[0].device)
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), extra])
    with _others_needed(world):
        dist.all_reduce(flat)
        sums = [float(value) for value in flat[len(flat) - len(values) :]]
    _copy_back(flat, gradients)
    return sums


def _copy_back(flat: Tensor, gradients: Sequence[Tensor]) -> None:
    begin = 0
    for gradient in gradients:
        end = begin + gradient.numel()
        gradient.copy_(flat[begin:end].view(gradient.shape))
        begin = end


@contextmanager
def _others_needed(world: World) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo and NCCL raise nothing more special when a peer is gone
        raise TrilobitError(
            f"process {world.rank} of {world.size} lost another one ({_reason(error)}); the same command "
            "continues from the last checkpoint"
        ) from None


def _reason(error: Exception) -> str:
    """Return the first sentence, without the place in the source that gloo puts before it."""
    return re.sub(r"^\[\S+\]\s*", "", str(error)).split(". ")[0].partition("\n")[0]
