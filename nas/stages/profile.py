"""Stage 1: measure every distinct unit of the space on the device, then calibrate on whole networks."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hw_profiles.errors import TrilobitError
from hw_profiles.profile import DeviceProfile, fit_calibration, load_profile, save_profile
from hw_profiles.profiler import measure_networks, plan_groups, profile_layers
from hw_profiles.workload import LayerSpec, Workload
from nas.export.to_onnx import emit, random_network
from nas.progress import progress_bar
from nas.run import Run
from predictors.table import distinct_layers
from supernet.family import Family

FITTED, HELD_OUT = 24, 30  # whole networks of each precision: for the calibration, and to test it
PRECISIONS = ("fp32", "int8", "mixed")


def run_profile(run: Run, console: Console) -> DeviceProfile:
    """The profile of the run's device for its space, measured as far as it is not there yet.

    Raises:
        TrilobitError: a profile of another device or plan is in its place, or a recorded one lacks units of
            this space.
    """
    layers = distinct_layers(run.family.space(), run.family.terms())
    if run.recorded:
        return _copy_recorded(run, layers)
    profile = start_profile(run)
    groups = len(
        plan_groups(run.backend, profile.missing(layers), profile, np.random.default_rng(run.config.seed))
    )
    seed = run.config.seed
    emit_random = partial(emit_with_random_numbers, seed=seed)
    with progress_bar(console, "profile", groups) as update:
        steps = profile_layers(
            run.backend, profile, layers, emit=emit_random, rng=np.random.default_rng(seed)
        )
        for done, profile in enumerate(steps, 1):
            save_profile(profile, run.profile_path)
            update(
                min(done, groups),
                f"{len(profile.table)} units" + ("; again, quieter" if done > groups else ""),
            )
    if profile.calibration is None:
        networks = calibration_networks(run.family, np.random.default_rng([seed, 4]))
        measured = measure_networks(run.backend, profile, networks, emit=emit_random)
        profile = replace(profile, calibration=fit_calibration(measured))
        save_profile(profile, run.profile_path)
    print_trust(profile, console)
    return profile


def print_trust(profile: DeviceProfile, console: Console) -> None:
    """How far the profile can be trusted: its error on whole networks that it was not fitted on."""
    if profile.calibration is None:
        return
    table = Table(
        "precision", "networks", "MAPE", "largest error", "Kendall tau", title="profile, on held-out networks"
    )
    for precision in (*PRECISIONS, None):
        error = profile.calibration.held_out_error(precision)
        if error["n"]:
            shown = (f"{error['mape']:.1%}", f"{error['max_error']:.1%}", f"{error['kendall_tau']:.2f}")
            table.add_row(precision or "all", str(error["n"]), *shown)
    console.print(table)


def start_profile(run: Run) -> DeviceProfile:
    """What is already measured, or an empty profile.

    Raises:
        TrilobitError: the profile there is of another device or plan.
    """
    fresh = DeviceProfile(run.backend.describe(), replace(run.plan, scale_disturbed=True))
    if not run.profile_path.exists():
        return fresh
    found = load_profile(run.profile_path)
    if found.device != fresh.device or found.plan != fresh.plan:
        raise TrilobitError(
            f"{run.profile_path}: measured on another device, engine version or plan; delete "
            "it to measure again"
        )
    return found


def emit_with_random_numbers(work: Workload, *, seed: int) -> bytes:
    """ONNX of a workload whose numbers do not matter."""
    return emit(random_network(work, rng=np.random.default_rng([seed, 5])))


def calibration_networks(
    family: Family, rng: np.random.Generator, *, held_out: int = HELD_OUT
) -> list[tuple[str, bool, Workload]]:
    """Random networks: (precision, held out, workload), of each precision `FITTED` to fit and `HELD_OUT` to
    test.
    """
    space = family.space()
    formats = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    networks = []
    for precision in PRECISIONS:
        genomes = space.sample(FITTED + held_out, rng=rng)
        if precision != "mixed":
            genomes[:, formats] = PRECISIONS.index(precision)
        for i, genome in enumerate(space.canonical(genomes)):
            networks.append((precision, i >= FITTED, family.workload(space.candidate(genome))))
    order = rng.permutation(len(networks))  # so that drift does not fall on one precision
    return [networks[i] for i in order]


def _copy_recorded(run: Run, layers: tuple[LayerSpec, ...]) -> DeviceProfile:
    path = Path(run.config.device.name.partition(":")[2])
    recorded = load_profile(path)
    missing = recorded.missing(layers)
    if missing:
        raise TrilobitError(
            f"{path}: lacks {len(missing)} of the {len(layers)} units of space {run.config.space.name}, "
            f"for example {missing[0].key()!r}; it was made for another space"
        )
    save_profile(recorded, run.profile_path)
    return recorded
