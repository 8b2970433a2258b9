"""What a profile is worth of which only a share of the units was measured, and the rest predicted.

Profiles every unit of a space with ONNX Runtime on this machine (or replays `--profile FILE`, a finished
profile of this space), hides all but the chosen units, fills the gaps, calibrates on whole networks, and
predicts 30 others of each precision. Peers: the same predictor on units drawn at random, gradient boosting on
the raw numbers of those same random units, and, with `--source FILE`, ours with another device's profile to
start from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report
from sklearn.ensemble import GradientBoostingRegressor

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.key import KINDS
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.in_context import in_context
from hw_profiles.measure.measurement import Estimate, MeasurePlan
from hw_profiles.profiles.latency_model import WholeNetwork, count_rows, fit_calibration
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.profiles.whole_networks import measure_networks
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.streams import Stream, open_stream
from nas.stages.profile import ROUND, calibration_networks, emit_with_random_numbers, unit_usage
from predictors.assessment.conformal import coverage
from predictors.latency.kernels import Source, choose_units, fill, source
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family

SHARES = (0.05, 0.1, 0.2, 0.4)
PRECISIONS = ("fp32", "int8", "mixed")
TARGETS = {0.2: 0.05}  # share -> largest MAPE
CHANNELS = {"digits-mbconv": 1, "cifar-mbconv": 3}
CHEAP_S = 5e-7  # relative errors of cheaper rows are taken as if they cost this much: some are near 0

Fill = Callable[[DeviceProfile, np.random.Generator], DeviceProfile]


@dataclass(frozen=True, eq=False)
class Truth:
    """A space whose every unit was measured, and whole networks that were too.

    Attributes:
        profile: the complete one.
        layers: the units of the space.
        networks: the workloads of the profile's calibration, in the same order.
        usage: how often a random network has each unit.
    """

    profile: DeviceProfile
    layers: tuple[Layer, ...]
    networks: tuple[Workload, ...]
    usage: Mapping[Layer, float]

    def part(self, chosen: Sequence[Layer]) -> DeviceProfile:
        """As if only these had been measured."""
        table = {layer: self.profile.table[layer] for layer in chosen}
        return replace(self.profile, table=table, estimates={}, calibration=None)


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=5)
    parser.add_argument("--space", default="cifar-mbconv", choices=CHANNELS)
    parser.add_argument("--profile", type=Path, metavar="FILE", help="replay this profile")
    parser.add_argument("--source", type=Path, metavar="FILE", help="profile of another device or space")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the complete profile here")
    arguments = parser.parse_args()
    family = load_family(arguments.space, in_channels=CHANNELS[arguments.space], classes=10)
    with one_core() as core:
        profile = load_profile(arguments.profile) if arguments.profile else measure(family, core)
        if arguments.save:
            save_profile(profile, arguments.save)
        sources = [source(load_profile(arguments.source))] if arguments.source else []
        truth = understand(profile, family)
        rows = complete_rows(truth)
        for share in SHARES[1:3] if arguments.quick else SHARES:
            rows += share_rows(truth, share, sources, 2 if arguments.quick else arguments.seeds)
    report("few_measurements", rows, arguments.json)


def measure(family: Family, core: int) -> DeviceProfile:
    """Every unit, then whole networks."""
    backend, emit = open_device("ort"), partial(emit_with_random_numbers, seed=0)
    plan, layers = (
        MeasurePlan(core=core, scale_disturbed=True),
        distinct_layers(family.space(), family.terms()),
    )
    empty, rng = DeviceProfile(backend.describe(), plan), np.random.default_rng(0)
    *_, profile = profile_layers(backend, empty, layers, emit=emit, rng=rng)
    profile = fill(profile, layers, rng=rng)  # rows that are too unsteady
    measured = measure_networks(backend, profile, _networks(family), emit=emit)
    return replace(profile, calibration=fit_calibration(measured))


def _networks(family: Family) -> list[tuple[str, bool, Workload]]:
    return calibration_networks(family, open_stream(0, Stream.WHOLE_NETWORKS))


def understand(profile: DeviceProfile, family: Family) -> Truth:
    """The profile with the networks that it was calibrated on, recognised by their sums.

    Raises:
        TrilobitError: not a complete and calibrated profile of this space with run seed 0.
    """
    layers = distinct_layers(family.space(), family.terms())
    known = {_identity(profile.sums_s(work), count_rows(work)): work for _, _, work in _networks(family)}
    measured = profile.calibration.networks if profile.calibration else ()
    networks = [net for net in measured if _identity(net.sums_s, net.rows) in known]
    if profile.missing(layers) or len(networks) < 100:
        raise TrilobitError(
            f"{len(profile.missing(layers))} units of {family.name} are missing, {len(networks)} networks"
            " known; give a complete, calibrated profile made with seed 0"
        )
    works = tuple(known[_identity(net.sums_s, net.rows)] for net in networks)
    kept = replace(profile, calibration=fit_calibration(networks))
    usage = unit_usage(family, np.random.default_rng(8))
    return Truth(kept, layers, works, usage)


def _identity(sums_s: Sequence[float], rows: Sequence[int]) -> tuple[float, ...]:
    return (*(round(1e12 * seconds) for seconds in sums_s), *rows)


def recalibrated(truth: Truth, filled: DeviceProfile) -> dict[str, dict[str, float]]:
    """Errors on the held-out networks per precision, after calibrating the filled profile."""
    measured = truth.profile.calibration.networks if truth.profile.calibration else ()
    networks: list[WholeNetwork] = [
        replace(net, sums_s=filled.sums_s(work)) for net, work in zip(measured, truth.networks, strict=True)
    ]
    fitted = fit_calibration(networks)
    return {precision: fitted.held_out_error(precision) for precision in PRECISIONS}


def complete_rows(truth: Truth) -> list[Row]:
    """What is left when every unit is measured: no share can do much better."""
    error = recalibrated(truth, truth.profile)
    return [Row(f"100 %, {p}", "MAPE", "fraction", "lower", error[p]["mape"], 0.0) for p in PRECISIONS]


def share_rows(truth: Truth, share: float, sources: Sequence[Source], seeds: int) -> list[Row]:
    """Row error, coverage, and MAPE and tau of whole networks, for ours and its peers."""
    n = round(share * len(truth.layers))
    ways: dict[str, tuple[Callable[[np.random.Generator], DeviceProfile], Fill]] = {
        "ours": (partial(_chosen, truth, n, ()), partial(_filled, truth, ())),
        "random units": (partial(_drawn, truth, n), partial(_filled, truth, ())),
        "gradient boosting": (partial(_drawn, truth, n), partial(_boosted, truth)),
    }
    if sources:
        ways["with a source"] = (partial(_chosen, truth, n, sources), partial(_filled, truth, sources))
    results: dict[str, list[dict[str, float]]] = {}
    for name, (pick, complete) in ways.items():
        for seed in range(seeds):
            part = pick(np.random.default_rng(seed))
            figures = _figures(truth, complete(part, np.random.default_rng(seed)))
            networks = {"networks timed for units": float(_networks_timed(part.table))}
            results.setdefault(name, []).append({**figures, **networks})
    return [_row(f"{share:.0%} measured", share, metric, results) for metric in results["ours"][0]]


def _row(task: str, share: float, metric: str, results: Mapping[str, Sequence[Mapping[str, float]]]) -> Row:
    values = {name: np.array([run[metric] for run in runs]) for name, runs in results.items()}
    medians = {name: float(np.median(v)) for name, v in values.items()}
    target = TARGETS.get(share) if "MAPE" in metric else None
    higher = "tau" in metric or "coverage" in metric
    spread = interquartile_range(values["ours"])
    peers = {name: value for name, value in medians.items() if name != "ours"}
    unit = "count" if "timed" in metric else "tau-a" if "tau" in metric else "fraction"
    return Row(task, metric, unit, "higher" if higher else "lower", medians["ours"], spread, peers, target)


def _figures(truth: Truth, filled: DeviceProfile) -> dict[str, float]:
    unsteady = set(truth.profile.unreliable_layers())  # of which the truth is not known
    hidden = [layer for layer in truth.layers if layer not in filled.table and layer not in unsteady]
    true_s = np.array([truth.profile.cost_s(layer) for layer in hidden])
    error_s = np.array([filled.cost_s(layer) for layer in hidden]) - true_s
    relative = np.abs(error_s) / np.maximum(np.abs(true_s), CHEAP_S)
    networks = recalibrated(truth, filled)
    return {
        "row error, median": float(np.median(relative)),
        "row error, 90th percentile": float(np.quantile(relative, 0.9)),
        "coverage of 90 % intervals": coverage(error_s, np.array([filled.std_s(layer) for layer in hidden])),
        **{f"MAPE, {p}": networks[p]["mape"] for p in PRECISIONS},
        **{f"Kendall tau, {p}": networks[p]["kendall_tau"] for p in PRECISIONS},
    }


def _networks_timed(layers: Mapping[Layer, object]) -> int:
    """Distinct probe networks of units and of the poolings they build on: what measuring them takes."""
    probes = [in_context(layer) for layer in layers]
    while pools := {in_context(pool) for probe in probes for _, pool in probe.pools} - set(probes):
        probes += pools
    return len({work for probe in probes for _, work in probe.workloads})


def _chosen(truth: Truth, n: int, sources: Sequence[Source], rng: np.random.Generator) -> DeviceProfile:
    """Round by round, as `nas profile` does it."""
    profile, batch = truth.part(()), math.ceil(ROUND * len(truth.layers))
    while missing := min(batch, n - len(profile.table)):
        more = choose_units(truth.layers, profile, missing, rng=rng, sources=sources, weights=truth.usage)
        profile = truth.part([*profile.table, *more])
    return profile


def _drawn(truth: Truth, n: int, rng: np.random.Generator) -> DeviceProfile:
    return truth.part([truth.layers[i] for i in rng.permutation(len(truth.layers))[:n]])


def _filled(
    truth: Truth, sources: Sequence[Source], part: DeviceProfile, rng: np.random.Generator
) -> DeviceProfile:
    return fill(part, truth.layers, sources=sources, rng=rng)


def _boosted(truth: Truth, part: DeviceProfile, rng: np.random.Generator) -> DeviceProfile:
    """Gradient boosting with default settings; its error on its own rows stands in for an uncertainty."""
    model = GradientBoostingRegressor(random_state=int(rng.integers(2**31)))
    known, seconds = list(part.table), np.array([row.median_s for row in part.table.values()])
    model.fit(_raw(known), seconds * 1e6)
    hidden = [layer for layer in truth.layers if layer not in part.table]
    std_s = float(np.std(model.predict(_raw(known)) * 1e-6 - seconds))
    predicted = np.maximum(model.predict(_raw(hidden)) * 1e-6, 0).tolist()
    return replace(
        part, estimates={layer: Estimate(s, std_s) for layer, s in zip(hidden, predicted, strict=True)}
    )


def _raw(layers: Sequence[Layer]) -> np.ndarray:
    """(n, 9) the numbers of a unit as they stand."""
    sizes = [
        (*layer.in_shape, layer.out_channels, layer.kernel, layer.stride, layer.groups) for layer in layers
    ]
    kinds = [(KINDS.index(layer.kind), layer.activation_format == "fp32") for layer in layers]
    return np.column_stack([sizes, kinds]).astype(float)


if __name__ == "__main__":
    main()
