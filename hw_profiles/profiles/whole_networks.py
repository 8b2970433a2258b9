"""Whole networks measured beside their rows: what a calibration is fitted to, and tested on."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.working_set import working_set_bytes
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.interleave import watching
from hw_profiles.measure.measurement import Measurement, MeasurePlan, WaitBudget, Watch, slowdown
from hw_profiles.profiles.batches import BATCH, BATCH_BYTES, context_of, reference_network, session_bytes
from hw_profiles.profiles.latency_model import WholeNetwork, count_rows
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.runtime import Job

TRUTH = 1.5  # whole networks get so many times the rounds of a unit: all else is judged by them
FEWEST = 2  # networks that a calibration can be fitted to
TRIES = 2  # for whole networks beside which the reference was off its usual time

Emit = Callable[[Workload], bytes]
Network = tuple[str, bool, Workload]  # precision, held out, what it is


def told_items(watch: Watch, done: int, n: int, share: float, waiting: bool) -> None:
    """Report what `interleave.watching` tells of a share, as numbers of items."""
    watch(done + share * n, waiting)


def measure_networks(
    device: Device,
    profile: DeviceProfile,
    networks: Sequence[Network],
    *,
    emit: Emit,
    deadline: float = float("inf"),
    unit_s: float = 0.0,
    waiting: WaitBudget | None = None,
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
    runnable = _runnable(profile, networks)
    if time.monotonic() + unit_s * _new_alone(device, profile, runnable[:FEWEST]) > deadline:
        return []
    reference = reference_network(device, sorted(profile.table, key=Layer.key))
    waiting, out = waiting or WaitBudget(profile.plan.waiting_s), list[WholeNetwork]()
    for batch in _in_time(runnable, deadline):
        share = len(batch) / (len(runnable) - len(out))
        progress = partial(told_items, waiting.watch, len(out), len(batch))
        with waiting.part(share, most_s=deadline - time.monotonic()) as some, watching(progress):
            works = [work for _, _, work in batch]
            measured, drift = _measure_steadily(device, profile, works, emit, reference, some)
        pairs = zip(batch, measured, strict=True)
        out += [_whole_network(profile, network, m, drift) for network, m in pairs]
    return _undisturbed(out)


def _runnable(profile: DeviceProfile, networks: Sequence[Network]) -> list[Network]:
    """Return the networks all of whose layers the device can run.

    Raises:
        ValueError: a row of one of them has no number and no estimate.
    """
    rejected = profile.unsupported().keys()
    runnable = [network for network in networks if rejected.isdisjoint(network[2].layers)]
    if any(not math.isfinite(sum(profile.sums_s(work))) for _, _, work in runnable):
        raise ValueError("refused rows are not predicted: fill the profile before measuring whole networks")
    return runnable


def _new_alone(device: Device, profile: DeviceProfile, networks: Sequence[Network]) -> int:
    """Return how many layers of some networks are measured alone and were not measured yet."""
    new = {layer for _, _, work in networks for layer in work.layers} - profile.table.keys()
    return sum(context_of(device, layer) is None for layer in new)


def _whole_network(profile: DeviceProfile, network: Network, m: Measurement, drift: float) -> WholeNetwork:
    """Return a measured network beside the sums of its rows, at the usual speed of the device.

    Raises:
        RuntimeError: the engine could not run it.
    """
    precision, held_out, work = network
    if m.error is not None:
        raise RuntimeError(f"a whole {precision} network failed: {m.error}")
    slow = slowdown(drift, profile.plan)
    usual = (m.median_s / slow, m.iqr_s / slow, m.quiet_share, drift)
    size = float(working_set_bytes(work))
    return WholeNetwork(precision, held_out, profile.sums_s(work), count_rows(work), *usual, size)


def _undisturbed(networks: list[WholeNetwork]) -> list[WholeNetwork]:
    """Return the networks with enough undisturbed windows; all where those are less than half."""
    undisturbed = [network for network in networks if network.quiet_share == 1]
    return undisturbed if 2 * len(undisturbed) >= len(networks) else networks


def _in_time(networks: Sequence[Network], deadline: float) -> Iterator[Sequence[Network]]:
    """Return the networks in batches: where there is a deadline a small one first, then as many as seem to
    fit.
    """
    size, begun = (FEWEST if math.isfinite(deadline) else BATCH), time.monotonic()
    while networks and begun <= deadline and size > 0:
        size = max(1, min(size, _fitting([work for _, _, work in networks])))
        yield networks[:size]
        networks, now = networks[size:], time.monotonic()
        each_s = (now - begun) / size
        size, begun = int(min(max(deadline - now, 0.0) / max(each_s, 1e-9), BATCH)), now


def _fitting(works: Sequence[Workload]) -> int:
    """Return how many of the first fit into memory together."""
    return int(np.searchsorted(np.cumsum([session_bytes(work) for work in works]), BATCH_BYTES))


def _measure_steadily(
    device: Device,
    profile: DeviceProfile,
    works: Sequence[Workload],
    emit: Emit,
    reference: Workload | None,
    waiting: WaitBudget,
) -> tuple[list[Measurement], float]:
    """Measure networks in the same passes as the reference, and how far off its usual time that was: the
    steadier of two tries, or the first within the plan's limit.
    """
    jobs = [Job(work, partial(emit, work)) for work in works]
    if reference is None or not profile.reference_s:
        return measure_within_budget(device, jobs, profile.plan, waiting), 0.0
    jobs.append(Job(reference, partial(emit, reference)))
    best: tuple[list[Measurement], float] = ([], float("inf"))
    for _ in range(TRIES):
        *measured, beside = measure_within_budget(device, jobs, profile.plan, waiting)
        drift = beside.median_s / profile.reference_s - 1
        best = min(best, (measured, drift), key=lambda attempt: abs(attempt[1]))
        if abs(drift) <= profile.plan.max_drift or not waiting.left_s:
            break
    return best


def measure_within_budget(
    device: Device, jobs: Sequence[Job], plan: MeasurePlan, waiting: WaitBudget | None = None
) -> list[Measurement]:
    """Measure whole networks, in more windows than units, and count what that waited.

    Args:
        waiting: what may be waited for quiet, shared with other calls; as long as the plan says if not given.
    """
    waiting = WaitBudget(plan.waiting_s) if waiting is None else waiting
    truth = replace(plan, rounds=math.ceil(TRUTH * plan.rounds), waiting_s=waiting.left_s)
    measured = device.measure(jobs, truth)
    waiting.spend(max((m.waited_s for m in measured), default=0.0))
    return measured
