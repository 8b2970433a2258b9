"""Fills a profile: skips what is there, measures in context and interleaved, gives the grown profile after
every group.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from hw_profiles.backend import Backend, Job
from hw_profiles.measurement import Measurement, MeasurePlan
from hw_profiles.probe import Probe, Shape, probe
from hw_profiles.profile import DeviceProfile, WholeNetwork, count_rows
from hw_profiles.workload import FP32, LayerSpec, Workload

GROUP = 12  # networks that take turns: enough to share a context, few enough to stay near each other in time

Emit = Callable[[Workload], bytes]
Item = TypeVar("Item")


def profile_layers(
    backend: Backend,
    profile: DeviceProfile,
    layers: Sequence[LayerSpec],
    *,
    emit: Emit,
    rng: np.random.Generator,
) -> Iterator[DeviceProfile]:
    """Measure the layers that `profile` lacks; gives the grown profile after every group, for the caller to
    save.

    Args:
        emit: turns a workload into ONNX with numbers of some sort in it.
        rng: shuffles the order, so that slow drift does not fall on one kind of layer.
    """
    start = time.monotonic()
    layers = [*_pools(layers), *layers]  # a disturbed pooling would disturb all that build on it
    pending, patience_s = profile.missing(layers) or profile.disturbed(layers), profile.plan.patience_s
    while pending:
        plan = replace(profile.plan, patience_s=patience_s)
        for group in plan_groups(pending, profile, rng):
            measured = _measure_group(backend, group, profile, plan, emit)
            profile = replace(profile, table={**profile.table, **_better(measured, profile.table)})
            yield profile
            if not profile.missing(layers) and time.monotonic() - start > plan.remeasure_s:
                return
        pending, patience_s = profile.disturbed(layers), 2 * patience_s


def plan_groups(
    missing: Iterable[LayerSpec], profile: DeviceProfile, rng: np.random.Generator
) -> list[list[LayerSpec]]:
    """Layers measured together: those that share a context, in random order of contexts; the poolings that
    others build on first.
    """
    wanted = list(missing)
    pools = {pool for pool in _pools(wanted) if pool in wanted or pool not in profile.table}
    fp32_first = sorted(pools, key=lambda layer: (layer.activation_format != FP32, layer.key()))
    groups = _chunks([layer for layer in fp32_first if layer.activation_format == FP32], GROUP - 1)
    groups += _chunks([layer for layer in fp32_first if layer.activation_format != FP32], 2)
    by_context: dict[tuple[str, Shape, str], list[LayerSpec]] = {}
    for layer in wanted:
        if layer not in pools:
            by_context.setdefault((layer.op, layer.in_shape, layer.activation_format), []).append(layer)
    contexts = list(by_context.values())
    for position in rng.permutation(len(contexts)):
        groups += _chunks(contexts[position], GROUP - 1)
    return groups


def _pools(layers: Iterable[LayerSpec]) -> set[LayerSpec]:
    """The poolings that rows build on; integer pooling itself builds on fp32 pooling."""
    direct = {pool for layer in layers for _, pool in probe(layer).pools}
    return direct | {pool for integer in direct for _, pool in probe(integer).pools}


def probe_networks(groups: Iterable[Sequence[LayerSpec]]) -> int:
    """How many networks measuring these groups will time: what an estimate of the time counts."""
    return sum(len({work for layer in group for _, work in probe(layer).workloads}) for group in groups)


def measure_networks(
    backend: Backend, profile: DeviceProfile, networks: Sequence[tuple[str, bool, Workload]], *, emit: Emit
) -> list[WholeNetwork]:
    """Measure whole networks, interleaved in groups: (precision, held out, workload) each.

    Those that were disturbed to the end are left out, unless that leaves less than half: a time that
    something else made says nothing about the table.

    Raises:
        RuntimeError: the engine cannot run one of them although it could run each of its layers.
    """
    out = []
    for group in _chunks(networks, GROUP):
        jobs = [Job(work, partial(emit, work)) for _, _, work in group]
        measured = measure_patiently(backend, jobs, profile.plan)
        for (precision, held_out, work), m in zip(group, measured, strict=True):
            if m.error is not None:
                raise RuntimeError(f"a whole {precision} network failed: {m.error}")
            sums_s, rows = profile.sums_s(work), count_rows(work)
            figures = (m.median_s, m.iqr_s, m.quiet_share)
            out.append(WholeNetwork(precision, held_out, sums_s, rows, *figures))
    quiet = [net for net in out if net.quiet_share >= profile.plan.quiet_share]
    return quiet if 2 * len(quiet) >= len(out) else out


def measure_patiently(backend: Backend, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
    """Measure once, and those that were disturbed again with growing patience, twice at most."""
    measured = backend.measure(jobs, plan)
    for factor in (4, 16):
        again = [i for i, m in enumerate(measured) if m.quiet_share < plan.quiet_share]
        if again:
            patient = replace(plan, patience_s=factor * plan.patience_s)
            for i, m in zip(again, backend.measure([jobs[i] for i in again], patient), strict=True):
                measured[i] = max(measured[i], m, key=lambda one: one.quiet_share)
    return measured


def _better(
    measured: Mapping[LayerSpec, Measurement], table: Mapping[LayerSpec, Measurement]
) -> dict[LayerSpec, Measurement]:
    """Those of the new rows that were measured in more quiet than the old."""
    return {
        layer: m
        for layer, m in measured.items()
        if layer not in table or m.quiet_share >= table[layer].quiet_share
    }


def _measure_group(
    backend: Backend, layers: Sequence[LayerSpec], profile: DeviceProfile, plan: MeasurePlan, emit: Emit
) -> dict[LayerSpec, Measurement]:
    probes = {layer: probe(layer) for layer in layers if backend.supports(layer)}
    works = list(dict.fromkeys(work for p in probes.values() for _, work in p.workloads))
    jobs = [Job(work, partial(emit, work)) for work in works]
    measured = dict(zip(works, backend.measure(jobs, plan), strict=True))
    rejected = f"{profile.device.engine} does not support these formats"
    return {
        layer: _combine(probes[layer], measured, profile) if layer in probes else Measurement(error=rejected)
        for layer in layers
    }


def _combine(p: Probe, measured: Mapping[Workload, Measurement], profile: DeviceProfile) -> Measurement:
    """The layer's samples: factors times the probe networks' samples, paired round by round."""
    parts = [measured[work] for _, work in p.workloads] + [profile.table[pool] for _, pool in p.pools]
    errors = [part.error for part in parts if part.error is not None]
    if errors:
        return Measurement(error=errors[0])
    samples = sum((factor * measured[work].array for factor, work in p.workloads), np.zeros(1))
    samples = samples + sum(factor * profile.table[pool].median_s for factor, pool in p.pools)
    quiet_share = min((part.quiet_share for part in parts), default=1.0)
    return Measurement(tuple(np.round(samples, 12).tolist()), quiet_share=quiet_share)


def _chunks(items: Sequence[Item], size: int) -> list[list[Item]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
