"""How well a profile predicts whole networks it was not fitted on, and what quiet windows are worth.

Profiles every unit of a space with ONNX Runtime on this machine, calibrates on whole networks, then predicts
30 others of each precision (fp32, int8, random mixed) and measures them. The last row times 12 networks in
turns, counting every window or only the quiet ones.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
from harness import Arguments, Row, one_core, parse_arguments, report

from hw_profiles.backend import Job
from hw_profiles.backends.ort import OrtBackend
from hw_profiles.calibration import fit_calibration
from hw_profiles.measurement import MeasurePlan
from hw_profiles.profile import DeviceProfile
from hw_profiles.profiler import measure_networks, profile_layers
from nas.stages.profile import PRECISIONS, calibration_networks, emit_with_random_numbers
from predictors.table import distinct_layers
from supernet.family import Family, load_family

SPACES = {"digits-mbconv": 1, "cifar-mbconv": 3}  # name -> image channels
HELD_OUT = 30


def main() -> None:
    """Print the table, write the JSON."""
    arguments = parse_arguments(__doc__, seeds=1)
    backend, rows = OrtBackend(), list[Row]()
    with one_core() as core:
        plan = MeasurePlan(core=core, scale_disturbed=True)
        families = [load_family(name, in_channels=channels, classes=10) for name, channels in SPACES.items()]
        for family in families:
            rows += space_rows(arguments, backend, plan, family)
        rows.append(quiet_row(backend, plan, families[-1]))
    report("profile_accuracy", rows, arguments.json)


def space_rows(arguments: Arguments, backend: OrtBackend, plan: MeasurePlan, family: Family) -> list[Row]:
    """MAPE and Kendall tau of each precision, and the seconds the profile took."""
    emit, rng = partial(emit_with_random_numbers, seed=0), np.random.default_rng(0)
    layers = distinct_layers(family.space(), family.terms())
    empty, start = DeviceProfile(backend.describe(), plan), time.monotonic()
    *_, profile = profile_layers(backend, empty, layers, emit=emit, rng=rng)
    seconds = time.monotonic() - start
    networks = calibration_networks(family, rng, held_out=10 if arguments.quick else HELD_OUT)
    fitted = fit_calibration(measure_networks(backend, profile, networks, emit=emit))
    rows = [Row(family.name, "profiling", "s", "lower", seconds, 0.0, target=300.0)]
    for precision in PRECISIONS:
        error = fitted.held_out_error(precision)
        held = [net for net in fitted.networks if net.held_out and net.precision == precision]
        relative = np.abs(fitted.predict_networks_s(held) / [net.measured_s for net in held] - 1)
        spread = float(np.subtract(*np.percentile(relative, (75, 25))))
        task = f"{family.name}, {precision}"
        rows.append(Row(task, "MAPE", "fraction", "lower", error["mape"], spread, target=0.05))
        rows.append(Row(task, "Kendall tau", "", "higher", error["kendall_tau"], 0.0, target=0.95))
    return rows


def quiet_row(backend: OrtBackend, plan: MeasurePlan, family: Family) -> Row:
    """IQR / median of 12 random networks: quiet windows, beside every window as it comes."""
    space = family.space()
    works = [family.workload(space.candidate(g)) for g in space.sample(12, rng=np.random.default_rng(1))]
    jobs = [Job(work, partial(emit_with_random_numbers, work, seed=0)) for work in works]
    gated = replace(plan, rounds=100, patience_s=30.0, scale_disturbed=False)
    spreads = [
        [m.iqr_s / m.median_s for m in backend.measure(jobs, one)]
        for one in (gated, replace(gated, quiet=float("inf")))
    ]
    ours, plain = (float(np.median(spread)) for spread in spreads)
    low, high = np.percentile(spreads[0], (25, 75))
    return Row(
        "12 networks in turns", "IQR / median", "fraction", "lower", ours, high - low, {"every window": plain}
    )


if __name__ == "__main__":
    main()
