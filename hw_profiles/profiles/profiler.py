"""Fills a profile: skips what is there, measures in context and in passes, gives the grown profile after
every batch.
"""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, takewhile

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import Probe
from hw_profiles.measure.interleave import watching
from hw_profiles.measure.measurement import Measurement, MeasurePlan, WaitBudget
from hw_profiles.profiles.batches import Batch, plan_batches, pools_of, reference_network, works_of
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.rebasing import rebased
from hw_profiles.profiles.whole_networks import Emit, told_items
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.runtime import Job

VISITS = 4  # of a unit: the first, and those for quiet

Rows = dict[Layer, Measurement]


def profile_layers(
    device: Device,
    profile: DeviceProfile,
    layers: Sequence[Layer],
    *,
    emit: Emit,
    rng: np.random.Generator,
    deadline: float = float("inf"),
    again: bool = True,
    waiting: WaitBudget | None = None,
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
    waiting = WaitBudget(profile.plan.waiting_s) if waiting is None else waiting
    reference = reference_network(device, layers)
    layers = [*pools_of(device, layers), *layers]  # a disturbed pooling would disturb all that build on it
    table, pending = dict(profile.table), profile.missing(layers)
    if waiting.left_s:
        pending = pending or profile.to_measure_again(layers)
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
        pending = profile.to_measure_again(layers) if again and time.monotonic() <= deadline else ()


def _measured(
    measure: Callable[[Batch], Rows], batches: Sequence[Batch], width: int, deadline: float
) -> Iterator[Rows]:
    """Return the rows of every batch, as they come: one batch after the other, or `width` at a time where
    several boards measure.
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
            yield from (
                future.result() for future in waiting if not future.cancelled() and future.exception() is None
            )
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _better(measured: Mapping[Layer, Measurement], profile: DeviceProfile) -> dict[Layer, Measurement]:
    """Return those of the new rows that are no worse than the old: quieter, with less drift, then
    steadier.
    """
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
    waiting: WaitBudget
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
        progress = partial(told_items, self.waiting.watch, 0, len(batch.layers))
        with (
            self.waiting.part(batch.share, most_s=self.deadline - time.monotonic()) as some,
            watching(progress),
        ):
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
    """Return the layer's samples: factors times the probe networks' samples, paired round by round."""
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
        temperature_c=measured[p.workloads[0][1]].temperature_c,
        frequency_hz=measured[p.workloads[0][1]].frequency_hz,
    )
