"""How well a profile predicts whole networks it was not fitted on: ONNX Runtime and TVM on this machine.

Profiles every unit of a space, calibrates on whole networks, then predicts 30 others of each precision (fp32,
int8, random mixed) and measures them, all on one thread and one image. Peer of the errors: the plain sum of
the rows with one slope and one constant (an affine fit), as OFA and HAWQV3 use their tables.

`--cold` tunes TVM's units from nothing (10 minutes) and then profiles once more on what it found; without it
the user's tuning database is used as it is.
`--before FILE` compares the fresh ONNX Runtime profile with one of an hour ago: do two profiles agree?
`--save DIR` keeps the profiles.
"""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report

from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.compare import compare
from hw_profiles.profiles.latency_model import WholeNetwork, fit_calibration, kendall_tau
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.profiles.whole_networks import measure_networks
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Job
from nas.stages.profile import calibration_networks, emit_with_random_numbers
from predictors.latency.kernels import fill
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family

CHANNELS = {"digits-mbconv": 1, "cifar-mbconv": 3}  # name of the space -> image channels
PRECISIONS = ("fp32", "int8", "mixed")
HELD_OUT = 30


@dataclass(frozen=True)
class Targets:
    """What we set out to reach on one engine: largest MAPE of each precision, least tau, most seconds."""

    mape: dict[str, float]
    tau: float
    seconds: float


ORT = Targets({"fp32": 0.015, "int8": 0.015, "mixed": 0.02}, 0.98, 300.0)
TVM_COLD = Targets(dict.fromkeys(PRECISIONS, 0.03), 0.97, 1800.0)
TVM_WARM = replace(TVM_COLD, seconds=240.0)


def main() -> None:
    """Print the table, write the JSON."""
    arguments = options().parse_args()
    rows: list[Row] = []
    with one_core() as core, tempfile.TemporaryDirectory() as empty:
        plan = MeasurePlan(core=core, scale_disturbed=True)
        family = load_family(arguments.space, in_channels=CHANNELS[arguments.space], classes=10)
        for task, backend, targets in engines(arguments, Path(empty)):
            profile, seconds = profiled(backend, plan, family)
            task = f"{family.name}, {task}"
            rows.append(Row(task, "profiling", "s", "lower", seconds, 0.0, target=targets.seconds))
            rows.append(Row(task, "refused rows", "", "lower", len(profile.unreliable_layers()), 0.0))
            profile = calibrated(backend, profile, family, arguments.quick)
            rows += error_rows(task, profile, targets)
            if targets is ORT:
                rows += [*again_rows(profile, arguments.before), quiet_row(backend, plan, family)]
            if arguments.save:
                save_profile(profile, arguments.save / f"{family.name}-{profile.device.name}.json")
    report("profile_accuracy", rows, arguments.json)


def options() -> ArgumentParser:
    """The command line."""
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument("--space", default="cifar-mbconv", choices=sorted(CHANNELS))
    parser.add_argument("--engines", default="ort,tvm", help="of ort, tvm (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="tune TVM's units from nothing")
    parser.add_argument("--before", type=Path, metavar="FILE", help="an earlier ONNX Runtime profile")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep the profiles")
    return parser


def engines(arguments: Namespace, empty: Path) -> Iterator[tuple[str, Device, Targets]]:
    """What to profile with: a name, the engine, its targets."""
    for engine in arguments.engines.split(","):
        if engine == "ort":
            yield "ort", open_device("ort"), ORT
        elif not arguments.cold:
            yield "tvm", open_device("tvm"), TVM_WARM
        else:
            yield "tvm, cold database", open_device("tvm", database=str(empty)), TVM_COLD
            yield "tvm, warm database", open_device("tvm", database=str(empty)), TVM_WARM


def profiled(backend: Device, plan: MeasurePlan, family: Family) -> tuple[DeviceProfile, float]:
    """Every unit measured, and the seconds that took."""
    layers = distinct_layers(family.space(), family.terms())
    emit, rng = partial(emit_with_random_numbers, seed=0), np.random.default_rng(0)
    empty, start = DeviceProfile(backend.describe(), plan), time.monotonic()
    *_, profile = profile_layers(backend, empty, layers, emit=emit, rng=rng)
    seconds = time.monotonic() - start
    return fill(profile, layers, rng=rng), seconds  # in place of rows whose number is refused


def calibrated(backend: Device, profile: DeviceProfile, family: Family, quick: bool) -> DeviceProfile:
    """With whole networks: those to fit and those to test."""
    networks = calibration_networks(family, np.random.default_rng(0), held_out=10 if quick else HELD_OUT)
    emit = partial(emit_with_random_numbers, seed=0)
    return replace(
        profile, calibration=fit_calibration(measure_networks(backend, profile, networks, emit=emit))
    )


def error_rows(task: str, profile: DeviceProfile, targets: Targets) -> list[Row]:
    """MAPE and Kendall tau of each precision on networks held out of the fit, beside a plain affine fit."""
    calibration, rows = profile.calibration, list[Row]()
    assert calibration is not None
    for precision in PRECISIONS:
        error = calibration.held_out_error(precision)
        held = [net for net in calibration.networks if net.held_out and net.precision == precision]
        relative = np.abs(calibration.predict_networks_s(held) / [net.measured_s for net in held] - 1)
        plain = affine(calibration.networks, held)
        measured = np.array([net.measured_s for net in held])
        name, peer = f"{task}, {precision}", "one slope, one constant"
        mape, tau = float(np.abs(plain / measured - 1).mean()), kendall_tau(plain, measured)
        spread = interquartile_range(relative)
        most = targets.mape[precision]
        rows.append(Row(name, "MAPE", "fraction", "lower", error["mape"], spread, {peer: mape}, most))
        rows.append(
            Row(name, "Kendall tau", "", "higher", error["kendall_tau"], 0.0, {peer: tau}, targets.tau)
        )
    return rows


def affine(networks: Sequence[WholeNetwork], held: Sequence[WholeNetwork]) -> np.ndarray:
    """(h,) seconds predicted by slope * sum of all rows + constant, fitted on relative error."""
    fitted = [net for net in networks if not net.held_out]
    measured = np.array([net.measured_s for net in fitted])
    design = np.array([[sum(net.sums_s), 1.0] for net in fitted]) / measured[:, None]
    slope, constant = np.linalg.lstsq(design, np.ones(len(fitted)), rcond=None)[0]
    return np.array([slope * sum(net.sums_s) + constant for net in held])


def again_rows(profile: DeviceProfile, before: Path | None) -> list[Row]:
    """How far two profiles of one device, taken at two times, are apart."""
    if before is None:
        return []
    ratios = np.array([pair.ratio for pair in compare(load_profile(before), profile).pairs])
    apart, task = np.abs(ratios - 1), "two profiles of one device, apart in time"
    spread = interquartile_range(apart)
    return [Row(task, "median difference of a unit", "fraction", "lower", float(np.median(apart)), spread,
                {"of the median ratio from 1": float(abs(np.median(ratios) - 1))}, 0.03)]  # fmt: skip


def quiet_row(backend: Device, plan: MeasurePlan, family: Family) -> Row:
    """IQR / median of 12 random networks: quiet windows, beside every window as it comes."""
    space = family.space()
    works = [family.workload(space.candidate(g)) for g in space.sample(12, rng=np.random.default_rng(1))]
    jobs = [Job(work, partial(emit_with_random_numbers, work, seed=0)) for work in works]
    gated = replace(plan, rounds=100, waiting_s=10.0, scale_disturbed=False)
    spreads = [
        [m.iqr_s / m.median_s for m in backend.measure(jobs, measure_plan)]
        for measure_plan in (gated, replace(gated, quiet=100.0))
    ]
    ours, plain = (float(np.median(spread)) for spread in spreads)
    task, spread = "12 networks in turns", interquartile_range(np.array(spreads[0]))
    return Row(task, "IQR / median", "fraction", "lower", ours, spread, {"every window": plain})


if __name__ == "__main__":
    main()
