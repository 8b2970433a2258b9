"""What every device promises (`nas.Device`), and with it the runtime and the transport that it is made of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np

from hw_profiles.documents import parse
from hw_profiles.graph.layer import Layer, changed, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Job
from nas.stages.profile import emit_with_random_numbers
from nas.testing.contract import Contract, expect

PLAN = MeasurePlan(rounds=3, waiting_s=0.0)
# in a format that nobody has
UNKNOWN: Layer = changed(
    map_layer("stem", (1, 28, 28), 8, 3, 2, 1, "relu"), weight_format="int3", activation_format="int3"
)


@dataclass(frozen=True, eq=False)
class DeviceCase:
    """A device and networks that it can run.

    Attributes:
        make: makes the device.
        works: a small network, and one that takes clearly longer.
    """

    make: Callable[[], Device]
    works: tuple[Workload, Workload]

    @cached_property
    def device(self) -> Device:
        """The device."""
        return self.make()


def job(work: Workload) -> Job:
    """Return a workload with random numbers as something to measure."""
    return Job(work, partial(emit_with_random_numbers, work, seed=0))


def is_the_same_on_every_call(case: DeviceCase) -> None:
    """Describe itself the same on every call, in words that a file can hold."""
    info = case.device.describe()
    expect(isinstance(info, DeviceInfo), f"describe() gives a {type(info).__name__}, not a DeviceInfo")
    expect(info == case.device.describe(), "describe() differs from call to call")
    expect(parse(DeviceInfo, info.to_json()) == info, "a file does not hold what it says of itself")


def says_what_its_figures_are(case: DeviceCase) -> None:
    """Say what its figures are, such as measured or published, and what its integer sums do."""
    info, hints = case.device.describe(), get_type_hints(DeviceInfo)
    expect(info.figures in get_args(hints["figures"]), f"figures are {info.figures!r}")
    expect(info.integer_sums in get_args(hints["integer_sums"]), f"integer sums are {info.integer_sums!r}")
    if info.figures != "measured":
        expect(not info.sums.reduced, "sums of a table or of a formula are exact")
    replayed = isinstance(case.device, RecordedDevice)
    times = info.figures == "measured" and not replayed
    expect(case.device.timed == times, f"timed is {case.device.timed}, its figures are {info.figures}")


def has_a_name_that_is_safe_for_files(case: DeviceCase) -> None:
    """Use a name that a file can have."""
    name = case.device.describe().name
    safe = name == Path(name).name and name.isascii() and " " not in name
    expect(safe, f"{name!r}: use ASCII letters, digits and hyphens")


def supports_what_it_runs_and_says_why_not(case: DeviceCase) -> None:
    """Say that it supports every layer of what it runs, not everything, and why not in one line."""
    layers = [layer for work in case.works for layer in work.layers]
    refused = [layer.key() for layer in layers if not case.device.supports(layer)]
    expect(not refused, f"it does not support {refused[:1]} of a network that it is said to run")
    expect(not case.device.supports(UNKNOWN), "it claims to support int3, which nobody has")
    reason = case.device.why_not(UNKNOWN)
    expect(reason and "\n" not in reason, f"why_not is one line, got {reason!r}")


def probes_with_what_it_runs(case: DeviceCase) -> None:
    """Build the probe of a layer from layers that it runs, that one among them."""
    for layer in case.works[0].layers:
        probe = case.device.probe(layer)
        holds = any(layer in work.layers for factor, work in probe.workloads if factor > 0)
        expect(holds, f"the probe of {layer.key()} does not hold it")
        parts = [part for _, work in probe.workloads for part in work.layers]
        expect(all(map(case.device.supports, parts)), f"the probe of {layer.key()} cannot be run")


def gives_one_measurement_per_job_in_order(case: DeviceCase) -> None:
    """Return one measurement for each job, in their order, for one layer and for no job too."""
    small, large = case.works
    expect(case.device.parallel >= 1, f"parallel is {case.device.parallel}")
    measured = case.device.measure([job(work) for work in (large, small, large)], PLAN)
    if case.device.describe().timeless:
        _refuses(measured, 3)
        return
    # the least of the samples: whatever else the machine does only adds to them
    first_s, second_s, third_s = (min(m.samples_s, default=math.inf) for m in measured)
    expect(second_s < min(first_s, third_s), "the small network, second of three, is not the quickest")
    layer = next(layer for layer in small.layers if layer.in_format == "fp32")
    [alone] = case.device.measure([job(single(layer))], PLAN)
    expect(alone.error is None, f"a single layer fails: {alone.error}")
    expect(case.device.measure([], PLAN) == [], "no job gives a measurement")


def _refuses(measured: Sequence[Measurement], count: int) -> None:
    """Expect of a device without times that it says of every job why there is none."""
    errors = [measurement.error or "" for measurement in measured]
    expect(len(errors) == count and all(errors), f"without times its errors are {errors}")
    expect("\n" not in "".join(errors), "an error is more than one line")


def gives_positive_seconds(case: DeviceCase) -> None:
    """Return positive seconds, as many for each job, and energies of every job or of none."""
    measured = case.device.measure([job(work) for work in case.works], PLAN)
    if case.device.describe().timeless:
        _refuses(measured, len(case.works))
        return
    expect(
        len({len(measurement.samples_s) for measurement in measured}) == 1,
        "jobs have different numbers of samples",
    )
    for measurement in measured:
        expect(measurement.error is None, f"a network fails: {measurement.error}")
        expect(
            (measurement.array > 0).all() and np.isfinite(measurement.array).all(),
            "a sample is not a positive time",
        )
        expect(0 <= measurement.quiet_share <= 1, f"quiet_share is {measurement.quiet_share}")
    joules = [measurement.energy_j for measurement in measured]
    energies = [energy for energy in joules if energy is not None]
    expect(not energies or (len(energies) == len(joules) and min(energies) > 0), f"energies are {joules}")
    expect(case.device.describe().energy, "it does not say where its energies come from")


def goes_on_after_a_failure(case: DeviceCase) -> None:
    """Return an error of one line for a job that fails, and go on with the others."""
    first, second = case.works
    broken = Job(single(UNKNOWN), lambda: b"no model")
    errors = [
        measurement.error for measurement in case.device.measure([job(first), broken, job(second)], PLAN)
    ]
    runs = not case.device.describe().timeless
    expect([error is None for error in errors] == [runs, False, runs], f"errors are {errors}")
    expect("\n" not in str(errors[1]), "the error is more than one line")


DEVICE = Contract[DeviceCase](
    "device",
    (
        is_the_same_on_every_call,
        says_what_its_figures_are,
        has_a_name_that_is_safe_for_files,
        supports_what_it_runs_and_says_why_not,
        probes_with_what_it_runs,
        gives_one_measurement_per_job_in_order,
        gives_positive_seconds,
        goes_on_after_a_failure,
    ),
)


def check_device(make: Callable[[], Device], works: tuple[Workload, Workload]) -> None:
    """Try every promise of a device.

    Args:
        make: makes the device: a function that opens it.
        works: a small network that it can run, and one that takes clearly longer.

    Raises:
        BrokenContractError: some are broken; all of them are named.
    """
    DEVICE(DeviceCase(make, works))
