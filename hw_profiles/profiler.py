"""Fills a profile: skips what is there, measures in context and interleaved, gives the grown profile after
every group.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from itertools import chain, takewhile
from typing import TypeVar

import numpy as np

from hw_profiles.backend import Backend, Job
from hw_profiles.calibration import WholeNetwork, count_rows
from hw_profiles.errors import TrilobitError
from hw_profiles.measurement import Measurement, MeasurePlan, joined, slowdown
from hw_profiles.probe import Probe, Shape
from hw_profiles.profile import DeviceProfile
from hw_profiles.workload import FP32, LayerSpec, Workload, macs

TRUTH = 2  # whole networks get so many times the rounds and sessions of a unit's: all else is judged by them
FEWEST = 2  # networks that a calibration can be fitted to
HURRIED = 3  # units that take turns when time is short: an engine may have to tune each of them first
GROUP = 12  # networks that take turns: enough to share a context, few enough to stay near each other in time

Emit = Callable[[Workload], bytes]
Rows = dict[LayerSpec, Measurement]
Item = TypeVar("Item")


def profile_layers(
    backend: Backend,
    profile: DeviceProfile,
    layers: Sequence[LayerSpec],
    *,
    emit: Emit,
    rng: np.random.Generator,
    deadline: float = float("inf"),
    again: bool = True,
) -> Iterator[DeviceProfile]:
    """Measure the layers that `profile` lacks, then again those that were disturbed, drifted or are too
    unsteady, while the plan's `remeasure_s` last; gives the grown profile after every group, for the caller
    to save.

    Args:
        emit: turns a workload into ONNX with numbers of some sort in it.
        rng: shuffles the order, so that slow drift does not fall on one kind of layer.
        deadline: on the monotonic clock; no group but the first is begun after it.
        again: whether to measure rows a second time at all.
    """
    start, reference = time.monotonic(), reference_network(backend, layers)
    layers = [*_pools(backend, layers), *layers]  # a disturbed pooling would disturb all that build on it
    table = dict(profile.table)
    pending, patience_s = profile.missing(layers) or profile.disturbed(layers), profile.plan.patience_s
    while pending:
        plan = replace(profile.plan, patience_s=patience_s)
        groups = plan_groups(backend, pending, profile, rng, hurry=math.isfinite(deadline))
        measure = partial(_measure_group, backend, table, plan=plan, emit=emit, reference=reference)
        for measured in _measured(measure, groups, backend.parallel, deadline):
            table |= _better(measured, profile)
            profile = replace(profile, table=dict(table))
            yield profile
            if not profile.missing(layers) and time.monotonic() - start > plan.remeasure_s:
                return
        pending, patience_s = profile.disturbed(layers) if again else (), 2 * patience_s


def _measured(
    measure: Callable[[Sequence[LayerSpec]], Rows],
    groups: Sequence[Sequence[LayerSpec]],
    width: int,
    deadline: float,
) -> Iterator[Rows]:
    """The rows of every group, as they come: one group after the other, or `width` at a time where several
    boards measure.
    """
    if width == 1:
        in_time = takewhile(lambda _: time.monotonic() <= deadline, groups[1:])
        yield from map(measure, chain(groups[:1], in_time))
        return
    with ThreadPoolExecutor(width) as pool:
        waiting = [pool.submit(measure, group) for group in groups]
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


def reference_network(backend: Backend, layers: Sequence[LayerSpec]) -> Workload | None:
    """What is measured again beside every group, to tell drift: the network of the space's heaviest unit."""
    heaviest = max(
        filter(backend.supports, layers), key=lambda layer: (macs(layer), layer.key()), default=None
    )
    return backend.probe(heaviest).workloads[0][1] if heaviest else None


def plan_groups(
    backend: Backend,
    missing: Iterable[LayerSpec],
    profile: DeviceProfile,
    rng: np.random.Generator,
    *,
    hurry: bool = False,
) -> list[list[LayerSpec]]:
    """Layers measured together: those that share a context, in random order of contexts, or any where a unit
    is measured alone, few in a hurry; the poolings that others build on first.
    """
    wanted = list(missing)
    pools = {pool for pool in _pools(backend, wanted) if pool in wanted or pool not in profile.table}
    fp32_first = sorted(pools, key=lambda layer: (layer.activation_format != FP32, layer.key()))
    groups = _chunks([layer for layer in fp32_first if layer.activation_format == FP32], GROUP - 1)
    groups += _chunks([layer for layer in fp32_first if layer.activation_format != FP32], 2)
    by_context: dict[tuple[str, Shape, str] | None, list[LayerSpec]] = {}
    for position in rng.permutation(len(wanted)):
        layer = wanted[position]
        if layer not in pools:
            by_context.setdefault(_context(backend, layer), []).append(layer)
    contexts = list(by_context.items())
    for position in rng.permutation(len(contexts)):
        context, layers = contexts[position]
        groups += _chunks(layers, HURRIED if hurry and context is None else GROUP - 1)
    return groups


def _context(backend: Backend, layer: LayerSpec) -> tuple[str, Shape, str] | None:
    """What a layer's probe shares with others: the networks without it; None where there are none."""
    if backend.supports(layer) and len(backend.probe(layer).workloads) == 1:
        return None
    return layer.op, layer.in_shape, layer.activation_format


def _pools(backend: Backend, layers: Iterable[LayerSpec]) -> set[LayerSpec]:
    """The poolings that rows build on; integer pooling itself builds on fp32 pooling."""
    direct = {pool for layer in layers if backend.supports(layer) for _, pool in backend.probe(layer).pools}
    return direct | {pool for integer in direct for _, pool in backend.probe(integer).pools}


def probe_networks(
    backend: Backend, groups: Iterable[Sequence[LayerSpec]], reference: Workload | None
) -> int:
    """How many networks measuring these groups will time: what an estimate of the time counts."""
    probes = ([backend.probe(layer) for layer in group if backend.supports(layer)] for group in groups)
    return sum(
        len({reference, *(work for p in group for _, work in p.workloads)}) for group in probes if group
    )


def measure_networks(
    backend: Backend,
    profile: DeviceProfile,
    networks: Sequence[tuple[str, bool, Workload]],
    *,
    emit: Emit,
    deadline: float = float("inf"),
    unit_s: float = 0.0,
) -> list[WholeNetwork]:
    """Measure whole networks, interleaved in groups: (precision, held out, workload) each.

    Networks with a unit that the device cannot run are left out; so are those that were disturbed to the
    end, unless that leaves less than half: a time that something else made says nothing about the table.

    Args:
        deadline: on the monotonic clock; nothing is begun that would end after it if every network took as
            long as those before.
        unit_s: what measuring a unit took. Where one is measured alone, a network takes as long for each of
            its units that was not measured: an engine that tunes has to tune it.

    Raises:
        ValueError: a row that was refused has no estimate.
        RuntimeError: the engine cannot run one of them although it could run each of its layers.
    """
    rejected, out = profile.rejected(), list[WholeNetwork]()
    runnable = [one for one in networks if rejected.keys().isdisjoint(one[2].layers)]
    if any(not math.isfinite(sum(profile.sums_s(work))) for _, _, work in runnable):
        raise ValueError("refused rows are not predicted: fill the profile before measuring whole networks")
    reference = reference_network(backend, sorted(profile.table, key=LayerSpec.key))
    first = {layer for _, _, work in runnable[:FEWEST] for layer in work.layers} - profile.table.keys()
    new = [layer for layer in first if _context(backend, layer) is None]
    if time.monotonic() + unit_s * len(new) > deadline:
        return []
    for group in _in_time(runnable, deadline):
        measured, drift = _measure_steadily(backend, profile, [work for _, _, work in group], emit, reference)
        for (precision, held_out, work), m in zip(group, measured, strict=True):
            if m.error is not None:
                raise RuntimeError(f"a whole {precision} network failed: {m.error}")
            sums_s, rows = profile.sums_s(work), count_rows(work)
            slow = slowdown(drift, profile.plan)
            usual = (m.median_s / slow, m.iqr_s / slow, m.quiet_share, drift)
            out.append(WholeNetwork(precision, held_out, sums_s, rows, *usual))
    quiet = [net for net in out if net.quiet_share >= profile.plan.quiet_share]
    return quiet if 2 * len(quiet) >= len(out) else out


def _in_time(items: Sequence[Item], deadline: float) -> Iterator[Sequence[Item]]:
    """The items in groups: where there is a deadline a small one first, then as many as seem to fit."""
    size, begun = (FEWEST if math.isfinite(deadline) else GROUP - 1), time.monotonic()
    while items and begun <= deadline and size > 0:
        yield items[:size]
        items, now = items[size:], time.monotonic()
        each_s = (now - begun) / size
        size, begun = int(min(max(deadline - now, 0.0) / max(each_s, 1e-9), GROUP - 1)), now


def _measure_steadily(
    backend: Backend,
    profile: DeviceProfile,
    works: Sequence[Workload],
    emit: Emit,
    reference: Workload | None,
) -> tuple[list[Measurement], float]:
    """Networks measured in turns with the reference, and how far off its usual time that was: the steadiest
    of three tries, or the first within the plan's limit.
    """
    plan = replace(profile.plan, rounds=TRUTH * profile.plan.rounds, sessions=TRUTH * profile.plan.sessions)
    jobs = [Job(work, partial(emit, work)) for work in works]
    if reference is None or not profile.reference_s:
        return measure_patiently(backend, jobs, plan), 0.0
    best: tuple[list[Measurement], float] = ([], float("inf"))
    for _ in range(3):
        *measured, beside = measure_patiently(
            backend, [*jobs, Job(reference, partial(emit, reference))], plan
        )
        drift = beside.median_s / profile.reference_s - 1
        best = min(best, (measured, drift), key=lambda one: abs(one[1]))
        if abs(drift) <= profile.plan.max_drift:
            break
    return best


def measure_patiently(backend: Backend, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
    """Measure once, and those that were disturbed again with growing patience, twice at most."""
    measured = measure_in_sessions(backend, jobs, plan)
    for factor in (4, 16):
        again = [i for i, m in enumerate(measured) if m.quiet_share < plan.quiet_share]
        if again:
            patient = replace(plan, patience_s=factor * plan.patience_s)
            chosen = [jobs[i] for i in again]
            for i, m in zip(again, measure_in_sessions(backend, chosen, patient), strict=True):
                measured[i] = max(measured[i], m, key=lambda one: one.quiet_share)
    return measured


def measure_in_sessions(backend: Backend, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
    """The plan's rounds in several sessions; samples are paired by index as in one."""
    rounds = math.ceil(plan.rounds / plan.sessions)
    parts = [backend.measure(jobs, replace(plan, rounds=rounds)) for _ in range(plan.sessions)]
    return [joined(of_one_job) for of_one_job in zip(*parts, strict=True)]


def _better(
    measured: Mapping[LayerSpec, Measurement], profile: DeviceProfile
) -> dict[LayerSpec, Measurement]:
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


def _measure_group(
    backend: Backend,
    table: Mapping[LayerSpec, Measurement],
    layers: Sequence[LayerSpec],
    *,
    plan: MeasurePlan,
    emit: Emit,
    reference: Workload | None,
) -> Rows:
    probes = {layer: backend.probe(layer) for layer in layers if backend.supports(layer)}
    extra = [reference] if reference is not None and probes else []
    works = list(dict.fromkeys([*extra, *(work for p in probes.values() for _, work in p.workloads)]))
    jobs = [Job(work, partial(emit, work)) for work in works]
    measured = dict(zip(works, measure_in_sessions(backend, jobs, plan), strict=True))
    beside = measured[extra[0]] if extra else None
    return {
        layer: _combine(probes[layer], measured, table, beside)
        if layer in probes
        else Measurement(error=backend.why_not(layer))
        for layer in layers
    }


def _combine(
    p: Probe,
    measured: Mapping[Workload, Measurement],
    table: Mapping[LayerSpec, Measurement],
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
    )


def _chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
