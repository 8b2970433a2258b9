"""Which layers are measured together: groups that share networks, as many at a time as may be open."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.device import Device

HURRIED = 3  # units that are measured together when time is short: an engine may have to tune each of them
GROUP = 12  # networks of one context at most, and units at most that are measured alone but together
# Networks whose sessions are open together: enough that all of them meet each quiet stretch, few enough to
# save what was measured every few seconds. Those of one batch shall not fill the memory either.
BATCH, BATCH_BYTES = 256, 2**29
SESSION_BYTES = 250_000  # what a session keeps besides its tensors
COPIES = 3  # of weights and tensors: the file's, the session's own, reordered

Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """What is measured in the same passes.

    Attributes:
        groups: layers; those of a group share a context.
        share: of the waiting that is left when the batch is begun, how much it may use.
    """

    groups: tuple[tuple[Layer, ...], ...]
    share: float = 1.0

    @property
    def layers(self) -> list[Layer]:
        """All of them."""
        return [layer for group in self.groups for layer in group]


def reference_network(device: Device, layers: Sequence[Layer]) -> Workload | None:
    """Return what is measured again beside every group, to tell drift: the network of the space's heaviest
    unit.
    """
    heaviest = max(
        filter(device.supports, layers), key=lambda layer: (macs(layer), layer.key()), default=None
    )
    return device.probe(heaviest).workloads[0][1] if heaviest else None


def plan_batches(
    device: Device,
    missing: Iterable[Layer],
    profile: DeviceProfile,
    rng: np.random.Generator,
    *,
    hurry: bool = False,
) -> list[Batch]:
    """Return layers measured together: groups that share a context, in random order, as many as make a batch;
    where units are measured alone a few, fewer in a hurry. The poolings that others build on come first.
    """
    pending = list(missing)
    pools = {pool for pool in pools_of(device, pending) if pool in pending or pool not in profile.table}
    fp32_first = sorted(pools, key=lambda layer: (layer.activation_format != FP32, layer.key()))
    floats = [layer for layer in fp32_first if layer.activation_format == FP32]
    integers = [layer for layer in fp32_first if layer.activation_format != FP32]
    by_context: dict[tuple[str, TensorType] | None, list[Layer]] = {}
    for position in rng.permutation(len(pending)):
        layer = pending[position]
        if layer not in pools:
            by_context.setdefault(context_of(device, layer), []).append(layer)
    contexts = list(by_context.items())
    groups = []
    for position in rng.permutation(len(contexts)):
        context, layers = contexts[position]
        groups += _chunks(layers, GROUP - 1 if context else 1)
    built_on = [_chunks(floats, GROUP - 1), _chunks(integers, 2)]
    most = HURRIED if hurry else GROUP - 1
    parts = [part for some in (*built_on, groups) for part in _batches(device, some, most)]
    networks = [_networks(device, part) for part in parts]
    shares = [networks[i] / max(1, sum(networks[i:])) for i in range(len(parts))]
    return [Batch(tuple(map(tuple, part)), share) for part, share in zip(parts, shares, strict=True)]


def _batches(
    device: Device, groups: Sequence[Sequence[Layer]], most_alone: int
) -> Iterator[list[Sequence[Layer]]]:
    """Return groups in order, as many at a time as may be open together."""
    batch: list[Sequence[Layer]] = []
    networks = size = alone = 0
    for group in groups:
        works = works_of(device, group)
        bytes_more = sum(map(session_bytes, works))
        full = networks + len(works) > BATCH or size + bytes_more > BATCH_BYTES or alone >= most_alone
        if batch and full:
            yield batch
            batch, networks, size, alone = [], 0, 0, 0
        batch.append(group)
        networks, size = networks + len(works), size + bytes_more
        alone += all(len(work.layers) == 1 for work in works)
    if batch:
        yield batch


def session_bytes(work: Workload) -> int:
    """Return about how much memory one session of a network takes."""
    weights = sum(4 * params(layer) for layer in work.layers)
    return SESSION_BYTES + COPIES * (weights + peak_bytes(work))


def works_of(device: Device, group: Sequence[Layer]) -> list[Workload]:
    """Return the networks that a group's rows are differences of."""
    probes = [device.probe(layer) for layer in group if device.supports(layer)]
    return list(dict.fromkeys(work for probe in probes for _, work in probe.workloads))


def _networks(device: Device, groups: Iterable[Sequence[Layer]]) -> int:
    return sum(len(works_of(device, group)) for group in groups)


def context_of(device: Device, layer: Layer) -> tuple[str, TensorType] | None:
    """Return what a layer's probe shares with others: the networks without it; None where there are none."""
    if device.supports(layer) and len(device.probe(layer).workloads) == 1:
        return None
    return layer.kind, TensorType(layer.inputs[0].shape, layer.activation_format)


def pools_of(device: Device, layers: Iterable[Layer]) -> set[Layer]:
    """Return the poolings that rows build on; integer pooling itself builds on fp32 pooling."""
    direct = {pool for layer in layers if device.supports(layer) for _, pool in device.probe(layer).pools}
    return direct | {pool for integer in direct for _, pool in device.probe(integer).pools}


def probe_networks(device: Device, batches: Iterable[Batch], reference: Workload | None) -> int:
    """Return how many networks measuring these batches will time: what an estimate of the time counts."""
    counts = [_networks(device, batch.groups) for batch in batches]
    return sum(count + (reference is not None) for count in counts if count)


def _chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
