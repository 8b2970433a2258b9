"""How well one table predicts whole transformers: ONNX Runtime on this machine, batch 1; decoders in both
scenarios.

Profiles every unit of a space, of decoders in `prefill` (a prompt with nothing before it) and `decode` (one
position behind others), calibrates each scenario on whole networks, then predicts other random networks, of
each precision (fp32, int8, mixed), decoders with caches in fp32, fp16 and int8, and measures them, on one
thread.
Peers of the errors: the plain sum of the rows; of tau what no table can beat: the same networks measured
again, and what errors of the error's target, by chance, leave of the order. Random networks lie close
together: with latencies that spread by a factor of exp(s), errors of e cost about .64 e / s of tau.

About 8 minutes on an idle machine; `--quick` is a check that it runs.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report
from scipy.stats import kendalltau

from hw_profiles.measure.measurement import MeasurePlan, WaitBudget
from hw_profiles.profiles.latency_model import Calibration, WholeNetwork, fit_calibration, prediction_error
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.profiles.whole_networks import measure_networks
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import open_device
from nas.stages.profile import calibration_networks, emit_with_random_numbers
from predictors.latency.kernels import fill
from predictors.table import profiled_layers
from supernet.families.family import Family, load_family

VOCABULARY = 256
MAPE, TAU = 0.03, 0.97  # what we set out to reach
FITTED, HELD_OUT = 16, 20  # whole networks of each precision and scenario
QUICK = 4
WHOLE = "whole texts"  # of spaces without scenarios
DRAWS = 200  # of errors by chance
SPREAD = "deviation of the logarithm of latencies"


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument("--space", default="text-decoder", help="(default: %(default)s)")
    parser.add_argument("--waiting", type=float, default=60.0, help="seconds to wait for quiet, at most")
    arguments = parser.parse_args()
    family = load_family(arguments.space, in_channels=VOCABULARY, classes=VOCABULARY)
    quick: bool = arguments.quick
    with one_core() as core:
        plan = MeasurePlan(core=core, scale_disturbed=True, waiting_s=0.0 if quick else arguments.waiting)
        plan = replace(plan, rounds=3) if quick else plan
        device, start = open_device("ort"), time.monotonic()
        profile = profiled(device, plan, family)
        rows = [seconds_row(family, "profiling", start), refused_row(family, profile)]
        for seed, name in enumerate(family.scenarios or (WHOLE,)):
            start = time.monotonic()
            scenario = name if family.scenarios else ""
            networks = measured(device, profile, family, scenario, seed, quick=quick)
            rows += error_rows(f"{family.name}, {name}", networks)
            rows.append(seconds_row(family, f"whole networks, {name}", start))
    report("scenarios", rows, arguments.json)


def seconds_row(family: Family, what: str, start: float) -> Row:
    """How long something took."""
    return Row(family.name, what, "s", "lower", time.monotonic() - start, 0.0)


def refused_row(family: Family, profile: DeviceProfile) -> Row:
    """How many rows have no number that can be relied on."""
    refused = len(profile.unreliable_layers())
    return Row(family.name, f"refused rows of {len(profile.table)}", "", "lower", refused, 0.0)


def profiled(device: Device, plan: MeasurePlan, family: Family) -> DeviceProfile:
    """Every unit of every scenario measured."""
    layers, rng = profiled_layers(family), np.random.default_rng(0)
    emit, empty = partial(emit_with_random_numbers, seed=0), DeviceProfile(device.describe(), plan)
    waiting = WaitBudget(plan.waiting_s / 2)
    *_, profile = profile_layers(device, empty, layers, emit=emit, rng=rng, waiting=waiting)
    return fill(profile, layers, rng=rng)  # in place of rows whose number is refused


def measured(
    device: Device, profile: DeviceProfile, family: Family, scenario: str, seed: int, *, quick: bool
) -> list[WholeNetwork]:
    """Random networks in a scenario, beside the sums of their rows; some to fit, the others, each measured
    twice, to test.
    """
    networks = calibration_networks(
        family,
        np.random.default_rng(seed),
        fitted=QUICK if quick else FITTED,
        held_out=QUICK if quick else HELD_OUT,
        scenario=scenario,
    )
    waiting = WaitBudget(profile.plan.waiting_s / 4)
    emit = partial(emit_with_random_numbers, seed=0)
    again = [network for network in networks if network[1]]
    return measure_networks(device, profile, [*networks, *again], emit=emit, waiting=waiting)


def error_rows(task: str, networks: Sequence[WholeNetwork]) -> list[Row]:
    """MAPE and Kendall tau on networks that the fit has not seen, of each precision and of all."""
    calibration, plain = fit_calibration(networks), Calibration()
    held, again = measured_twice([net for net in networks if net.held_out])
    rows = []
    for precision in (*dict.fromkeys(net.precision for net in held), None):
        some = [net for net in held if precision in (None, net.precision)]
        times = np.array([net.measured_s for net in some])
        ours, sums = (prediction_error(fit.predict_networks_s(some), times) for fit in (calibration, plain))
        spread = interquartile_range(np.abs(calibration.predict_networks_s(some) / times - 1))
        name = f"{task}, {precision or 'all'}, {len(some)} networks"
        peers = {key: {"sum of the rows": sums[key]} for key in ("mape", "kendall_tau")}
        rows.append(Row(name, "MAPE", "fraction", "lower", ours["mape"], spread, peers["mape"], MAPE))
        tau = ours["kendall_tau"]
        repeated = [second for net, second in zip(held, again, strict=True) if net in some]
        peers["kendall_tau"] |= ceilings(some, repeated)
        rows.append(Row(name, "Kendall tau", "", "higher", tau, 0.0, peers["kendall_tau"], TAU))
        rows.append(Row(name, SPREAD, "", "higher", float(np.log(times).std()), 0.0))
    return rows


def measured_twice(
    networks: Sequence[WholeNetwork],
) -> tuple[list[WholeNetwork], list[WholeNetwork]]:
    """Networks by the first and by the second time that each was measured; others are left out."""
    first: dict[tuple[object, ...], WholeNetwork] = {}
    pairs = []
    for net in networks:
        known = (net.precision, net.sums_s, net.rows)
        if known in first:
            pairs.append((first.pop(known), net))
        else:
            first[known] = net
    return [earlier for earlier, _ in pairs], [later for _, later in pairs]


def ceilings(networks: Sequence[WholeNetwork], again: Sequence[WholeNetwork]) -> dict[str, float]:
    """Kendall's tau that no table can beat: of a second measurement, and of errors by chance as large as the
    target allows.
    """
    times, repeated = (np.array([net.measured_s for net in nets]) for nets in (networks, again))
    rng, deviation = np.random.default_rng(0), MAPE * np.sqrt(np.pi / 2)
    drawn = [
        kendalltau(times, times * (1 + deviation * rng.standard_normal(len(times)))) for _ in range(DRAWS)
    ]
    return {
        "measured again": float(kendalltau(times, repeated).statistic),
        f"errors of {MAPE:.0%} by chance": float(np.mean([each.statistic for each in drawn])),
    }


if __name__ == "__main__":
    main()
