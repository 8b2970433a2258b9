"""Stage 1: measure the units of the space on the device, calibrate on whole networks, predict what was not
measured.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Measurement, MeasurePlan, WaitBudget
from hw_profiles.profiles.batches import Batch, plan_batches
from hw_profiles.profiles.latency_model import Calibration, WholeNetwork, fit_calibration
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.profiles.reported_times import report_form
from hw_profiles.profiles.whole_networks import FEWEST, Emit, Network, measure_networks
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.streams import Stream, open_stream
from nas.emit.to_onnx import emit, random_network
from nas.problem.costs import LATENCY, compile_costs
from nas.problem.scenarios import scenario_latency
from nas.problem.targets import is_feasible_on_device
from nas.run.progress import Update, waiting_note
from nas.run.reporting import Add, Reporter
from nas.run.run import Run
from nas.stages.validation import print_trust, random_networks, validate
from predictors.latency.kernels import Source, choose_units, fill, source
from predictors.table import profiled_layers
from supernet.families.family import Family

FORM = "layers.csv"  # of a board's times, in a run's folder
FITTED, HELD_OUT = 24, 30  # whole networks of each precision: for the calibration, and to test it
# Of a time budget, until when each is measured (predicting ends it); units get that share of the waiting too.
UNITS_SHARE, NETWORKS_SHARE = 0.6, 0.9
WAITING_SHARE = 0.25  # of a time budget, that may pass waiting for quiet: some disturbed rows beat few rows
ROUND = 0.04  # of the units are chosen at a time when not all are measured
SAVING = 10  # times as long as it takes to save passes between two saves; measuring a batch takes longer
TRIED = 4096  # random networks: how many the device can run, and whether a calibration makes sense of them
LEAST_OF_SUM = 0.25  # of the sum of its rows that a network takes: in context, sums are some percent off


def run_profile(run: Run, reporter: Reporter) -> DeviceProfile:
    """Profile the run's device for its space, as far as that is not done yet.

    Raises:
        TrilobitError: a profile of another device or plan is in its place, or the device can run no network
            of the space.
    """
    layers = profiled_layers(run.family)
    if run.timeless:
        profile = _refusals(run, layers)
        save_profile(profile, run.profile_path)
    elif isinstance(run.device, RecordedDevice):
        profile = run.device.profile
        save_profile(profile, run.profile_path)
    else:
        check_any_runs(run, layers)
        profile = _measure(run, layers, reporter)
    _print_coverage(run, profile, layers, reporter)
    if not run.timeless:
        print_trust(profile, reporter)
    return profile


def _refusals(run: Run, layers: tuple[Layer, ...]) -> DeviceProfile:
    """Return the profile of a device without times: which layers it cannot run.

    Raises:
        TrilobitError: it can run no network of the space.
    """
    check_any_runs(run, layers)
    device = run.device
    refused = [layer for layer in layers if not device.supports(layer)]
    rows = {layer: Measurement(error=device.why_not(layer)) for layer in refused}
    return DeviceProfile(device.describe(), MeasurePlan(rounds=1, waiting_s=0.0), rows)


def require_times(run: Run) -> None:
    """Refuse a device without times, whose profile would hold none; a form for a board's own is written.

    Raises:
        TrilobitError: it is one; says where the form is, and what to do with it.
    """
    if not run.timeless:
        return
    layers = [layer for layer in profiled_layers(run.family) if run.device.supports(layer)]
    path = run.folder / FORM
    write_atomic(path, report_form(layers))
    name = run.config.device.name
    raise TrilobitError(
        f"{name} has no times to profile: write what a board takes behind the {len(layers)} layers in "
        f"{path}, and take --device {name}:{path}; a published table or a profile of the board will do too"
    )


def check_any_runs(run: Run, layers: tuple[Layer, ...]) -> None:
    """Raise unless the device has kernels for some network of the space; nothing is measured.

    Raises:
        TrilobitError: it has none.
    """
    device = run.device
    refusals = {
        layer: Measurement(error=device.why_not(layer)) for layer in layers if not device.supports(layer)
    }
    if refusals:
        rows = {layer: refusals.get(layer, Measurement((1.0,))) for layer in layers}
        _share_that_runs(run, DeviceProfile(device.describe(), run.plan, rows), next(iter(refusals)))


def run_validation(run: Run, n: int, reporter: Reporter) -> DeviceProfile:
    """Test the profile that is there on `n` new random networks of each kind.

    Raises:
        TrilobitError: `n` is not positive, or nothing is measured on this device.
    """
    check_validation(n)
    profile = validate(run, load_profile(run.profile_path), n, emit=random_emitter(run))
    save_profile(profile, run.profile_path)
    print_trust(profile, reporter)
    return profile


def check_validation(n: int) -> None:
    """Refuse a number of networks before anything is measured.

    Raises:
        TrilobitError: it is not positive.
    """
    if n < 1:
        raise TrilobitError(f"--validate must be at least 1, got {n}")


def _measure(run: Run, layers: tuple[Layer, ...], reporter: Reporter) -> DeviceProfile:
    started, budget_s = time.monotonic(), math.inf if run.recorded else run.config.profile.budget_s()
    sources = [source(load_profile(Path(path))) for path in run.config.profile.sources]
    profile, waiting = start_profile(run), WaitBudget(min(run.plan.waiting_s, WAITING_SHARE * budget_s))
    measured_before = len(profile.table)
    with reporter.progress() as add:
        deadline, saving = started + UNITS_SHARE * budget_s, 0.0  # from when on the profile is saved again
        bar = _UnitsBar(add("units", _wanted(run, layers), end_s=deadline), layers)
        bar.show(profile)
        with waiting.part(UNITS_SHARE, watch=bar.watch) as some:
            for grown in _measure_units(run, profile, layers, sources, deadline, some):
                profile = grown
                if time.monotonic() >= saving:
                    began = time.monotonic()
                    save_profile(profile, run.profile_path)
                    saving = began + SAVING * (time.monotonic() - began)
                bar.show(profile)
        unit_s = (time.monotonic() - started) / max(1, len(profile.table) - measured_before)
        rng = open_stream(run.config.seed, Stream.FILLED_UNITS)
        if any(layer not in profile.table or profile.unreliable(layer) for layer in layers):
            profile = fill(profile, layers, sources=sources, rng=rng)
        if len(profile.table) > measured_before:
            # of a table that is no more
            profile = replace(profile, calibration=None, validation=None, scenarios={})
        if profile.calibration is None and not run.recorded:
            end = started + NETWORKS_SHARE * budget_s
            profile = _calibrated(run, profile, add, deadline=end, unit_s=unit_s, waiting=waiting)
    if profile.calibration is not None and profile.calibration.is_plain:
        reporter.say(
            "not calibrated: what whole networks say gives others times that make no sense; rows are added "
            "up as they are; measure more of them (--share, --budget), or on a quieter machine"
        )
    save_profile(profile, run.profile_path)
    return profile


def _calibrated(
    run: Run, profile: DeviceProfile, add: Add, *, deadline: float, unit_s: float, waiting: WaitBudget
) -> DeviceProfile:
    """Calibrate a profile on whole networks, as far as there is time for them: once, or in each scenario of
    decoders.
    """
    rng, calibrated = open_stream(run.config.seed, Stream.WHOLE_NETWORKS), profile
    names = tuple(run.family.scenarios) or ("",)
    for name in names:
        networks = calibration_networks(run.family, rng, fitted=FITTED, held_out=HELD_OUT, scenario=name)
        update = add(f"networks, {name}" if name else "networks", len(networks), end_s=deadline)
        measured = _whole_networks(
            run, profile, networks, update, deadline=deadline, unit_s=unit_s, waiting=waiting
        )
        if sum(not net.held_out for net in measured) >= FEWEST:
            drawn = open_stream(run.config.seed, Stream.EXTRAPOLATED)
            calibrated = with_calibration(run.family, calibrated, measured, rng=drawn, scenario=name)
    return calibrated


def _whole_networks(
    run: Run,
    profile: DeviceProfile,
    networks: Sequence[Network],
    update: Update,
    *,
    deadline: float,
    unit_s: float,
    waiting: WaitBudget,
) -> list[WholeNetwork]:
    watched = replace(
        waiting, watch=lambda done, waits: update(done, waiting_note() if waits else "measured")
    )
    return measure_networks(
        run.device,
        profile,
        networks,
        emit=random_emitter(run),
        deadline=deadline,
        unit_s=unit_s,
        waiting=watched,
    )


def with_calibration(
    family: Family,
    profile: DeviceProfile,
    measured: Sequence[WholeNetwork],
    *,
    rng: np.random.Generator,
    scenario: str = "",
) -> DeviceProfile:
    """Return the profile calibrated on whole networks, or with plain sums beside what was measured where that
    makes nonsense of other networks: few and noisy ones extrapolate to times below zero.

    Args:
        scenario: that they were measured in.
    """
    space = family.space()
    ends = [candidate.genes for candidate in family.extremes().values()]
    genomes = np.concatenate([space.sample(TRIED, rng=rng), np.array(ends, np.int16)])
    latency = scenario_latency(scenario) if scenario else LATENCY
    plain, fitted = (
        profile.calibrated(calibration, scenario)
        for calibration in (Calibration(networks=tuple(measured)), fit_calibration(measured))
    )
    plain_s, fitted_s = (compile_costs(family, p).predict(genomes)[latency] for p in (plain, fitted))
    runs = np.isfinite(plain_s)
    return fitted if (fitted_s[runs] >= LEAST_OF_SUM * plain_s[runs]).all() else plain


def _measure_units(
    run: Run,
    profile: DeviceProfile,
    layers: tuple[Layer, ...],
    sources: Sequence[Source],
    deadline: float,
    waiting: WaitBudget,
) -> Iterator[DeviceProfile]:
    """Measure all units, or the most telling ones in rounds until a share is reached or the time used up."""
    rng = np.random.default_rng(run.config.seed)

    measure = partial(profile_layers, run.device, emit=random_emitter(run), rng=rng, deadline=deadline)
    needed = _wanted(run, layers)
    if needed == len(layers) and deadline == math.inf:
        yield from measure(profile, layers, waiting=waiting)
        return
    usage = unit_usage(run.family, open_stream(run.config.seed, Stream.UNIT_USAGE))
    while not profile.table or time.monotonic() < deadline:  # something has to be predicted from
        n = min(math.ceil(ROUND * len(layers)), needed - (len(layers) - len(profile.missing(layers))))
        if n <= 0:
            remeasured = [layer for layer in layers if layer in profile.table]
            yield from measure(profile, remeasured, waiting=waiting)
            return
        selected = choose_units(layers, profile, n, rng=rng, sources=sources, weights=usage)
        left = len(profile.missing(layers)) - (len(layers) - needed)
        with waiting.part(n / max(n, left)) as some:
            for grown in measure(profile, selected, again=False, waiting=some):
                profile = grown
                yield profile


def _wanted(run: Run, layers: tuple[Layer, ...]) -> int:
    """Return how many units to measure: a share, or all where that costs nothing."""
    return math.ceil((1.0 if run.recorded else run.config.profile.share) * len(layers))


@dataclass
class _UnitsBar:
    """How many units have all their quiet windows.

    Attributes:
        done: before the batch that is under way.
        lacking: measured, with fewer.
    """

    update: Update
    layers: tuple[Layer, ...]
    done: int = 0
    lacking: int = 0

    def show(self, profile: DeviceProfile) -> None:
        """Show what is done after a batch."""
        self.lacking = len(profile.to_measure_again(self.layers))
        self.done = len(self.layers) - len(profile.missing(self.layers)) - self.lacking
        self.watch(0, False)

    def watch(self, more: float, waits: bool) -> None:
        """Show what is done during a batch, `more` of which are done."""
        note = f"measured, {self.lacking} with fewer quiet windows" if self.lacking else "measured"
        self.update(min(self.done + more, len(self.layers)), waiting_note() if waits else note)


def unit_usage(family: Family, rng: np.random.Generator, *, networks: int = 256) -> dict[Layer, float]:
    """Return how often each unit occurs in a random network, on average."""
    space, usage = family.space(), dict[Layer, float]()
    for candidate in map(space.candidate, space.sample(networks, rng=rng)):
        for name in tuple(family.scenarios) or ("",):
            for layer in family.scenario_workload(candidate, name).layers:
                usage[layer] = usage.get(layer, 0.0) + 1 / networks
    return usage


def _print_coverage(run: Run, profile: DeviceProfile, layers: tuple[Layer, ...], reporter: Reporter) -> None:
    """Report how many units were measured, predicted, refused or rejected, and what is left of the space.

    Raises:
        TrilobitError: no network is left.
    """
    cannot = profile.unsupported()
    rejected = [layer for layer in layers if layer in cannot]
    refused = [layer for layer in layers if profile.unreliable(layer)]
    predicted = profile.predicted(layers)
    distrusted = f" ({len(refused)} of them because their measured number is unreliable)" if refused else ""
    if run.timeless:
        reporter.say(f"{len(layers)} units: {len(rejected)} that {profile.device.name} cannot run; no times")
    else:
        reporter.say(
            f"{len(layers)} units: {len(layers) - len(rejected) - len(predicted)} {profile.device.figures}, "
            f"{len(predicted)} predicted{distrusted}, {len(rejected)} that {profile.device.name} cannot run"
        )
    if profile.device.sums.reduced:
        reporter.say(_reduced(profile.device))
    if not rejected:
        return
    share, example = _share_that_runs(run, profile, rejected[0]), rejected[0]
    why = f"for example {example.key()!r}: {profile.table[example].error}"
    reporter.say(f"the space is narrowed: {share:.1%} of random networks can run; {why}")


def _share_that_runs(run: Run, profile: DeviceProfile, example: Layer) -> float:
    """Return which share of random networks the device can run.

    Args:
        example: a layer that it cannot.

    Raises:
        TrilobitError: it can run none of them.
    """
    space, rng = run.family.space(), open_stream(run.config.seed, Stream.EXCLUDED)
    runs = is_feasible_on_device(compile_costs(run.family, profile).predict(space.sample(TRIED, rng=rng)))
    if not runs.any():
        raise TrilobitError(
            f"{profile.device.name} can run none of {TRIED:,} random networks of {run.config.space.name}, "
            f"for example {example.key()!r}: {profile.table[example].error}; "
            "choose a space or number formats that it covers (--space, --formats)"
        )
    return float(runs.mean())


def _reduced(device: DeviceInfo) -> str:
    """Return what follows for int8 where integer sums may saturate."""
    if device.integer_sums == "unknown":
        why = f"{device.name} does not say whether its integer sums saturate"
    else:
        why = f"integer sums of {device.name} saturate"
    return f"{why}: int8 has weights of 7 bits; int8-exact has all 8, and a time of its own"


def start_profile(run: Run) -> DeviceProfile:
    """Return what is already measured, or an empty profile.

    Raises:
        TrilobitError: the profile there is of another device or plan.
    """
    plan = MeasurePlan(rounds=1, waiting_s=0.0) if run.recorded else replace(run.plan, scale_disturbed=True)
    fresh = DeviceProfile(run.device.describe(), plan)
    if not run.profile_path.exists():
        return fresh
    stored = load_profile(run.profile_path)
    if stored.device.integer_sums == "unknown":  # written before that was asked, which changes no time
        stored = replace(stored, device=replace(stored.device, integer_sums=fresh.device.integer_sums))
    if stored.device != fresh.device or stored.plan != fresh.plan:
        raise TrilobitError(
            f"{run.profile_path}: measured on another device, engine version or plan; delete "
            "it to measure again"
        )
    return stored


def random_emitter(run: Run) -> Emit:
    """Return what turns workloads into ONNX for the run's batch size, with numbers that do not matter."""
    return partial(emit_with_random_numbers, seed=run.config.seed, batch=run.config.device.batch)


def emit_with_random_numbers(work: Workload, *, seed: int, batch: int = 1) -> bytes:
    """Return ONNX of a workload whose numbers do not matter."""
    return emit(random_network(work, rng=open_stream(seed, Stream.RANDOM_NUMBERS)), batch=batch)


def calibration_networks(
    family: Family,
    rng: np.random.Generator,
    *,
    fitted: int = FITTED,
    held_out: int = HELD_OUT,
    scenario: str = "",
) -> list[Network]:
    """Draw random networks: (precision, held out, workload), of each precision `fitted` to fit and `held_out`
    to test; the first third of those to fit comes first, in case time runs out.

    Args:
        scenario: in which decoders run.
    """
    networks = [
        (precision, i >= fitted, work)
        for precision, works in random_networks(family, fitted + held_out, rng, scenario).items()
        for i, work in enumerate(works)
    ]
    order = rng.permutation(len(networks))  # drift falls on all precisions alike
    to_fit = [networks[i] for i in order if not networks[i][1]]
    others = to_fit[fitted:] + [networks[i] for i in order if networks[i][1]]
    return to_fit[:fitted] + [others[i] for i in rng.permutation(len(others))]


def estimate_batches(run: Run, layers: tuple[Layer, ...]) -> list[Batch]:
    """Return the batches that are still to be measured: what an estimate of the time counts."""
    profile = start_profile(run)
    missing = profile.missing(layers)
    missing = missing[: max(0, _wanted(run, layers) - (len(layers) - len(missing)))]
    return plan_batches(run.device, missing, profile, np.random.default_rng(0))
