"""Fills a profile: skips what is there, measures in context and in passes, gives the grown profile after
every batch.
"""

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, takewhile
from typing import TypeVar

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import Probe, Shape
from hw_profiles.measure.interleave import watching
from hw_profiles.measure.measurement import Measurement, MeasurePlan, Waiting, Watch, slowdown
from hw_profiles.profiles.latency_model import WholeNetwork, count_rows
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.rebasing import rebased
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.runtime import Job

TRUTH = 1.5  # whole networks get so many times the rounds of a unit: all else is judged by them
FEWEST = 2  # networks that a calibration can be fitted to
HURRIED = 3  # units that are measured together when time is short: an engine may have to tune each of them
GROUP = 12  # networks of one context at most, and units at most that are measured alone but together
# Networks whose sessions are open together: enough that all of them meet each quiet stretch, few enough to
# save what was measured every few seconds. Those of one batch shall not fill the memory either.
BATCH, BATCH_BYTES = 256, 2**29
SESSION_BYTES = 250_000  # what a session keeps besides its tensors
COPIES = 3  # of weights and tensors: the file's, the session's own, reordered
VISITS = 4  # of a unit: the first, and those for quiet
TRIES = 2  # for whole networks beside which the reference was off its usual time

Emit = Callable[[Workload], bytes]
Network = tuple[str, bool, Workload]  # precision, held out, what it is
Rows = dict[Layer, Measurement]
Item = TypeVar("Item")


def _told(watch: Watch, before: int, n: int, share: float, waiting: bool) -> None:
    """What `interleave.watching` tells of a share, as numbers of items."""
    watch(before + share * n, waiting)


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


def profile_layers(
    device: Device,
    profile: DeviceProfile,
    layers: Sequence[Layer],
    *,
    emit: Emit,
    rng: np.random.Generator,
    deadline: float = float("inf"),
    again: bool = True,
    waiting: Waiting | None = None,
) -> Iterator[DeviceProfile]:
    """Measure the layers that `profile` lacks, then again those that lack quiet windows, drifted or are too
    unsteady, while there is time to wait; gives the grown profile after every batch, for the caller to save.

    Args:
        emit: turns a workload into ONNX with numbers of some sort in it.
        rng: shuffles the order, so that slow drift does not fall on one kind of layer.
        deadline: on the monotonic clock; no batch but the first is begun after it, and none waits beyond it.
        again: whether to measure rows a second time at all.
        waiting: what may be waited for quiet, in all; as long as the profile's plan says if not given. It
            is told how many rows of the batch under way are done.
    """
    waiting = Waiting(profile.plan.waiting_s) if waiting is None else waiting
    reference = reference_network(device, layers)
    layers = [*_pools(device, layers), *layers]  # a disturbed pooling would disturb all that build on it
    table, pending = dict(profile.table), profile.missing(layers)
    if waiting.left_s:
        pending = pending or profile.disturbed(layers)
    for visit in range(VISITS):
        began, left_s = time.monotonic(), waiting.left_s
        if not pending or (visit and not left_s):
            return
        until = min(deadline, began + left_s) if visit else deadline
        batches = plan_batches(device, pending, profile, rng, hurry=math.isfinite(deadline))
        sitting = _Sitting(device, table, profile.plan, emit, reference, waiting, deadline)
        for measured in _measured(sitting.measure, batches, device.parallel, until):
            better = _better(measured, profile)
            table |= rebased(device, table, better) | better
            profile = replace(profile, table=dict(table))
            yield profile
        if visit:  # all of it was for quiet
            waiting.left_s = min(waiting.left_s, max(0.0, left_s - (time.monotonic() - began)))
        pending = profile.disturbed(layers) if again and time.monotonic() <= deadline else ()


def _measured(
    measure: Callable[[Batch], Rows], batches: Sequence[Batch], width: int, deadline: float
) -> Iterator[Rows]:
    """The rows of every batch, as they come: one batch after the other, or `width` at a time where several
    boards measure.
    """
    if width == 1:
        in_time = takewhile(lambda _: time.monotonic() <= deadline, batches[1:])
        yield from map(measure, chain(batches[:1], in_time))
        return
    with ThreadPoolExecutor(width) as pool:
        waiting = [pool.submit(measure, batch) for batch in batches]
        try:
            for done in as_completed(waiting):
                yield done.result()
                waiting.remove(done)
                if time.monotonic() > deadline:
                    break
        except TrilobitError:  # no board is left; what others were just measuring still counts
            pool.shutdown(cancel_futures=True)
            yield from (one.result() for one in waiting if not one.cancelled() and one.exception() is None)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def reference_network(device: Device, layers: Sequence[Layer]) -> Workload | None:
    """What is measured again beside every group, to tell drift: the network of the space's heaviest unit."""
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
    """Layers measured together: groups that share a context, in random order, as many as make a batch; where
    units are measured alone a few, fewer in a hurry. The poolings that others build on come first.
    """
    pending = list(missing)
    pools = {pool for pool in _pools(device, pending) if pool in pending or pool not in profile.table}
    fp32_first = sorted(pools, key=lambda layer: (layer.activation_format != FP32, layer.key()))
    floats = [layer for layer in fp32_first if layer.activation_format == FP32]
    integers = [layer for layer in fp32_first if layer.activation_format != FP32]
    by_context: dict[tuple[str, Shape, str] | None, list[Layer]] = {}
    for position in rng.permutation(len(pending)):
        layer = pending[position]
        if layer not in pools:
            by_context.setdefault(_context(device, layer), []).append(layer)
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
    """Groups in order, as many at a time as may be open together."""
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


def _context(device: Device, layer: Layer) -> tuple[str, Shape, str] | None:
    """What a layer's probe shares with others: the networks without it; None where there are none."""
    if device.supports(layer) and len(device.probe(layer).workloads) == 1:
        return None
    return layer.kind, layer.in_shape, layer.activation_format


def _pools(device: Device, layers: Iterable[Layer]) -> set[Layer]:
    """The poolings that rows build on; integer pooling itself builds on fp32 pooling."""
    direct = {pool for layer in layers if device.supports(layer) for _, pool in device.probe(layer).pools}
    return direct | {pool for integer in direct for _, pool in device.probe(integer).pools}


def probe_networks(device: Device, batches: Iterable[Batch], reference: Workload | None) -> int:
    """Return how many networks measuring these batches will time: what an estimate of the time counts."""
    counts = [_networks(device, batch.groups) for batch in batches]
    return sum(count + (reference is not None) for count in counts if count)


def measure_networks(
    device: Device,
    profile: DeviceProfile,
    networks: Sequence[Network],
    *,
    emit: Emit,
    deadline: float = float("inf"),
    unit_s: float = 0.0,
    waiting: Waiting | None = None,
) -> list[WholeNetwork]:
    """Measure whole networks in passes: (precision, held out, workload) each.

    Networks with a unit that the device cannot run are left out; so are those without enough quiet windows,
    unless that leaves less than half: a time that something else made says nothing about the table.

    Args:
        deadline: on the monotonic clock; nothing is begun that would end after it if every network took as
            long as those before.
        unit_s: what measuring a unit took. Where one is measured alone, a network takes as long for each of
            its units that was not measured: an engine that tunes has to tune it.
        waiting: what may be waited for quiet, in all; as long as the profile's plan says if not given. It
            is told how many networks are done.

    Raises:
        ValueError: a row that was refused has no estimate.
        RuntimeError: the engine cannot run one of them although it could run each of its layers.
    """
    rejected, out = profile.rejected(), list[WholeNetwork]()
    runnable = [one for one in networks if rejected.keys().isdisjoint(one[2].layers)]
    if any(not math.isfinite(sum(profile.sums_s(work))) for _, _, work in runnable):
        raise ValueError("refused rows are not predicted: fill the profile before measuring whole networks")
    reference = reference_network(device, sorted(profile.table, key=Layer.key))
    first = {layer for _, _, work in runnable[:FEWEST] for layer in work.layers} - profile.table.keys()
    new = [layer for layer in first if _context(device, layer) is None]
    if time.monotonic() + unit_s * len(new) > deadline:
        return []
    waiting = Waiting(profile.plan.waiting_s) if waiting is None else waiting
    for batch in _in_time(runnable, deadline):
        works, share = [work for _, _, work in batch], len(batch) / (len(runnable) - len(out))
        told = partial(_told, waiting.watch, len(out), len(batch))
        with waiting.part(share, most_s=deadline - time.monotonic()) as some, watching(told):
            measured, drift = _measure_steadily(device, profile, works, emit, reference, some)
        for (precision, held_out, work), m in zip(batch, measured, strict=True):
            if m.error is not None:
                raise RuntimeError(f"a whole {precision} network failed: {m.error}")
            sums_s, rows = profile.sums_s(work), count_rows(work)
            slow = slowdown(drift, profile.plan)
            usual = (m.median_s / slow, m.iqr_s / slow, m.quiet_share, drift)
            out.append(WholeNetwork(precision, held_out, sums_s, rows, *usual))
    quiet = [net for net in out if net.quiet_share == 1]
    return quiet if 2 * len(quiet) >= len(out) else out


def _in_time(networks: Sequence[Network], deadline: float) -> Iterator[Sequence[Network]]:
    """The networks in batches: where there is a deadline a small one first, then as many as seem to fit."""
    size, begun = (FEWEST if math.isfinite(deadline) else BATCH), time.monotonic()
    while networks and begun <= deadline and size > 0:
        size = max(1, min(size, _fitting([work for _, _, work in networks])))
        yield networks[:size]
        networks, now = networks[size:], time.monotonic()
        each_s = (now - begun) / size
        size, begun = int(min(max(deadline - now, 0.0) / max(each_s, 1e-9), BATCH)), now


def _fitting(works: Sequence[Workload]) -> int:
    """How many of the first fit into memory together."""
    return int(np.searchsorted(np.cumsum([session_bytes(work) for work in works]), BATCH_BYTES))


def _measure_steadily(
    device: Device,
    profile: DeviceProfile,
    works: Sequence[Workload],
    emit: Emit,
    reference: Workload | None,
    waiting: Waiting,
) -> tuple[list[Measurement], float]:
    """Networks measured in the same passes as the reference, and how far off its usual time that was: the
    steadier of two tries, or the first within the plan's limit.
    """
    jobs = [Job(work, partial(emit, work)) for work in works]
    if reference is None or not profile.reference_s:
        return measure_patiently(device, jobs, profile.plan, waiting), 0.0
    jobs.append(Job(reference, partial(emit, reference)))
    best: tuple[list[Measurement], float] = ([], float("inf"))
    for _ in range(TRIES):
        *measured, beside = measure_patiently(device, jobs, profile.plan, waiting)
        drift = beside.median_s / profile.reference_s - 1
        best = min(best, (measured, drift), key=lambda one: abs(one[1]))
        if abs(drift) <= profile.plan.max_drift or not waiting.left_s:
            break
    return best


def measure_patiently(
    device: Device, jobs: Sequence[Job], plan: MeasurePlan, waiting: Waiting | None = None
) -> list[Measurement]:
    """Measure whole networks, in more windows than units, and count what that waited.

    Args:
        waiting: what may be waited for quiet, shared with other calls; as long as the plan says if not given.
    """
    waiting = Waiting(plan.waiting_s) if waiting is None else waiting
    truth = replace(plan, rounds=math.ceil(TRUTH * plan.rounds), waiting_s=waiting.left_s)
    measured = device.measure(jobs, truth)
    waiting.spend(max((m.waited_s for m in measured), default=0.0))
    return measured


def _better(measured: Mapping[Layer, Measurement], profile: DeviceProfile) -> dict[Layer, Measurement]:
    """Those of the new rows that are no worse than the old: quieter, with less drift, then steadier."""
    usual_s, plan = profile.reference_s, profile.plan

    def quality(m: Measurement) -> tuple[bool, float, float]:
        drift = abs(m.reference_s / usual_s - 1) if m.reference_s and usual_s else 0.0
        fine = m.spread <= plan.max_spread and drift <= plan.max_drift
        return fine, m.quiet_share, -m.spread

    table = profile.table
    return {
        layer: m
        for layer, m in measured.items()
        if layer not in table or m.error is not None or quality(m) >= quality(table[layer])
    }


@dataclass(frozen=True)
class _Sitting:
    """Measuring batch after batch.

    Attributes:
        table: the rows so far, which grow meanwhile.
        reference: a network that takes part in every batch, to tell drift.
    """

    device: Device
    table: Mapping[Layer, Measurement]
    plan: MeasurePlan
    emit: Emit
    reference: Workload | None
    waiting: Waiting
    deadline: float

    def measure(self, batch: Batch) -> Rows:
        """Return the rows of one batch."""
        device = self.device
        jobs = [
            Job(work, partial(self.emit, work), context)
            for context, group in enumerate(batch.groups)
            for work in works_of(device, group)
        ]
        beside = [Job(self.reference, partial(self.emit, self.reference))] if self.reference and jobs else []
        told = partial(_told, self.waiting.watch, 0, len(batch.layers))
        with self.waiting.part(batch.share, most_s=self.deadline - time.monotonic()) as some, watching(told):
            measured = device.measure([*beside, *jobs], replace(self.plan, waiting_s=some.left_s))
            some.spend(max((m.waited_s for m in measured), default=0.0))
        reference = measured[0] if beside else None
        own: dict[Hashable, dict[Workload, Measurement]] = {}
        for job, m in zip(jobs, measured[len(beside) :], strict=True):
            own.setdefault(job.context, {})[job.workload] = m
        return {
            layer: _combine(device.probe(layer), own[context], self.table, reference)
            if device.supports(layer)
            else Measurement(error=device.why_not(layer))
            for context, group in enumerate(batch.groups)
            for layer in group
        }


def _combine(
    p: Probe,
    measured: Mapping[Workload, Measurement],
    table: Mapping[Layer, Measurement],
    beside: Measurement | None,
) -> Measurement:
    """The layer's samples: factors times the probe networks' samples, paired round by round."""
    parts = [measured[work] for _, work in p.workloads] + [table[pool] for _, pool in p.pools]
    errors = [part.error for part in parts if part.error is not None]
    if errors:
        return Measurement(error=errors[0])
    samples = sum((factor * measured[work].array for factor, work in p.workloads), np.zeros(1))
    samples = samples + sum(factor * table[pool].median_s for factor, pool in p.pools)
    terms = [(factor, measured[work]) for factor, work in p.workloads]
    terms += [(factor, table[pool]) for factor, pool in p.pools]
    joules = [m.energy_j for _, m in terms if m.energy_j is not None]
    return Measurement(
        tuple(np.round(samples, 12).tolist()),
        quiet_share=min((part.quiet_share for part in parts), default=1.0),
        context_s=max(measured[work].median_s for _, work in p.workloads),
        reference_s=beside.median_s if beside is not None and beside.error is None else None,
        energy_j=sum(f * (m.energy_j or 0.0) for f, m in terms) if len(joules) == len(terms) else None,
        load=measured[p.workloads[0][1]].load,
    )


def _chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
