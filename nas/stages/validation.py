"""How far a profile can be trusted: whole networks that its calibration has never seen, predicted and
measured.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.workload import Workload
from hw_profiles.profiles.latency_model import Calibration, Validation, groups
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.trust import trust
from hw_profiles.profiles.whole_networks import Emit, measure_networks
from hw_profiles.streams import Stream, open_stream
from nas.run.reporting import Reporter, Table
from nas.run.run import Run
from supernet.families.family import Family


def random_networks(
    family: Family, n: int, rng: np.random.Generator, scenario: str = ""
) -> dict[str, list[Workload]]:
    """Draw `n` random networks of each kind: uniform in each number format of the space, as its corners are,
    and `mixed`.

    Args:
        scenario: in which decoders run.
    """
    space = family.space()
    columns = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    formats = {fmt: np.array(family.extreme("largest", fmt).genes)[columns] for fmt in family.formats}
    out = {}
    for precision in (*formats, *(("mixed",) if len(formats) > 1 else ())):
        genomes = space.sample(n, rng=rng)
        if precision != "mixed":
            genomes[:, columns] = formats[precision]
        candidates = map(space.candidate, space.canonical(genomes))
        out[precision] = [family.scenario_workload(candidate, scenario) for candidate in candidates]
    return out


def validate(run: Run, profile: DeviceProfile, n: int, *, emit: Emit) -> DeviceProfile:
    """Draw `n` new random networks of each kind, measure them in turns, and keep the outcome in the profile.

    Raises:
        TrilobitError: the device's times are looked up or modelled: there is nothing to measure.
    """
    if run.recorded:
        raise TrilobitError(
            f"--validate measures, and {run.config.device.name} is not measured: its times are looked up"
        )
    draw = profile.validation.draw + 1 if profile.validation else 0
    scenario = next(iter(run.family.scenarios), "")
    rng = open_stream(run.config.seed, Stream.VALIDATION, draw)
    networks = [
        (precision, True, work)
        for precision, works in random_networks(run.family, n, rng, scenario).items()
        for work in works
    ]
    shuffled = [networks[i] for i in rng.permutation(len(networks))]
    plan = replace(profile.plan, scale_disturbed=False)  # truth is what was seen, never scaled
    measured = measure_networks(run.device, replace(profile, plan=plan), shuffled, emit=emit)
    validation = Validation(draw, time.strftime("%Y-%m-%dT%H:%M:%S%z"), tuple(measured))
    return replace(profile, validation=validation)


def print_trust(profile: DeviceProfile, reporter: Reporter) -> None:
    """Report the error on networks held out of the calibration, of the last validation, and a verdict."""
    calibration = profile.calibration
    if calibration is not None:
        errors = {
            name: calibration.held_out_error(precision)
            for name, precision in groups(calibration.networks).items()
        }
        _print_errors("profile, on held-out networks", errors, reporter)
    if profile.validation is not None:
        fitted, last = calibration or Calibration(), profile.validation
        errors = {name: last.error(fitted, precision) for name, precision in groups(last.networks).items()}
        _print_errors(f"validation {last.draw + 1}, {last.date}, on new networks", errors, reporter)
    if profile.device.figures == "measured":
        reporter.say(str(trust(profile)))


def _print_errors(title: str, errors: Mapping[str, Mapping[str, float]], reporter: Reporter) -> None:
    columns = ("precision", "networks", "MAPE", "largest error", "within 5 %", "within 10 %", "Kendall tau")
    rows = []
    for name, error in errors.items():
        if error["n"]:
            shares = (f"{error[key]:.1%}" for key in ("mape", "max_error"))
            within = (f"{error[key]:.0%}" for key in ("within_5", "within_10"))
            rows.append((name, str(error["n"]), *shares, *within, f"{error['kendall_tau']:.3f}"))
    if rows:
        reporter.show(Table(columns, rows, title, numbers=6))
