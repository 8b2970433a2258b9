"""`nas profile compare`: two saved profiles, unit by unit and over the networks of a space."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.compare import CLOSE, Comparison, Pair, compare, why_nothing_in_common
from hw_profiles.profiles.latency_model import kendall_tau
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from nas.problem.costs import compile_costs
from nas.report.comparison import PLOTS, write_plot
from nas.run.reporting import Reporter, Table
from nas.search.objectives import objective
from nas.search.units import show
from supernet.families.family import Family, load_family
from supernet.registry import FORMATS

NETWORKS = 2_000  # random ones; Kendall's tau of so many is known to 0.015
SEED = 0  # always the same networks: figures of two calls can be compared


def compare_profiles(
    a: Path, b: Path, *, space: str | None, plot: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Compare two profile files, print what they say, and give it as plain data.

    Args:
        space: compare the predicted latencies of this space's networks too.
        plot: where to write a plot of the units, `.html` or `.svg`.

    Raises:
        TrilobitError: not a profile, no unit in common, an unknown space or one that a profile does not
            cover, or a plot of another kind.
    """
    if plot is not None and plot.suffix not in PLOTS:
        raise TrilobitError(f"{plot}: a plot is written as one of {', '.join(PLOTS)}; end the name in one")
    profiles = load_profile(a), load_profile(b)
    comparison = compare(*profiles)
    if not comparison.pairs:
        raise TrilobitError(
            f"{a} and {b} have no measured unit in common (of {len(profiles[0].table)} and "
            f"{len(profiles[1].table)}): {why_nothing_in_common(*profiles)}"
        )
    document = {**comparison.to_json(), "files": [str(a), str(b)], "networks": None, "plot": None}
    _print_units(comparison, reporter)
    if space is not None:
        document["networks"] = compare_networks(*profiles, space)
        _print_networks(document["networks"], comparison, reporter)
    if plot is not None:
        write_plot(comparison, plot)
        document["plot"] = str(plot)
        reporter.say(f"plot: {plot}")
    return document


def compare_networks(a: DeviceProfile, b: DeviceProfile, space: str) -> dict[str, Any]:
    """Compare the latencies that two profiles predict for random networks of a space: Kendall's tau, and the
    median of B over A; networks that one of them cannot run are left out.

    Raises:
        TrilobitError: an unknown space, or one that a profile does not cover.
    """
    family = covered_family(a, b, space)
    genomes = family.space().sample(NETWORKS, rng=np.random.default_rng(SEED))
    both = np.stack([compile_costs(family, profile).predict(genomes)["latency"] for profile in (a, b)])
    a_s, b_s = both[:, np.isfinite(both).all(axis=0)]
    tau = kendall_tau(a_s, b_s)
    formats = {choice.options for choice in family.space().choices if choice.kind == "precision"}
    return {
        "space": space,
        "formats": sorted({str(option) for options in formats for option in options}),
        "sampled": NETWORKS,
        "run_on_both": len(a_s),
        "kendall_tau": None if math.isnan(tau) else tau,
        "median_ratio": float(np.median(b_s / a_s)) if len(a_s) else None,
    }


def covered_family(a: DeviceProfile, b: DeviceProfile, space: str) -> Family:
    """Return the space for the images, classes and number formats that both profiles have units of.

    Raises:
        TrilobitError: an unknown space, or a profile without the first or the last layer of a network.
    """
    both = [{*profile.table, *profile.estimates} for profile in (a, b)]
    shared = both[0] & both[1]
    channels = {layer.in_shape[0] for layer in shared if layer.kind == "stem"}
    classes = {layer.out_channels for layer in shared if layer.kind == "linear"}
    stored = {layer.weight_format for layer in shared if layer.kind == "stem"}
    if not channels or not classes:
        raise TrilobitError(
            f"{a.device.name} and {b.device.name} share no first or no last layer of a network: they are of "
            f"single units or of other spaces than {space}; leave --space out"
        )
    formats = tuple(name for name in FORMATS if name in stored) or None
    return load_family(space, in_channels=min(channels), classes=min(classes), formats=formats)


# -- for people -------------------------------------------------------------------------------------


def _print_units(comparison: Comparison, reporter: Reporter) -> None:
    reporter.say(f"A is {comparison.a}, B is {comparison.b}; ratios are B / A, above 1 is slower on B")
    counts = {
        "compared": comparison.pairs,
        "near zero": comparison.near_zero,
        "without a number on one": comparison.unusable,
        "only in A": comparison.only_a,
        "only in B": comparison.only_b,
    }
    reporter.say("units: " + ", ".join(f"{len(layers)} {name}" for name, layers in counts.items()))
    within = ", ".join(f"{comparison.share_within(share):.0%} within {share:.0%}" for share in CLOSE)
    reporter.say(
        f"median ratio {comparison.median_ratio:.3g}; {within}; rank correlation of the units: "
        f"Spearman {comparison.spearman:.3f}, Kendall {comparison.kendall:.3f}"
    )
    rows = [(kind, fmt, str(n), f"{ratio:.3f}") for (kind, fmt), (n, ratio) in comparison.by_kind().items()]
    title = "median ratio by kind of unit"
    reporter.show(Table(("unit", "format", "units", "B / A"), rows, title, numbers=2))
    _print_pairs("faster on A", comparison.faster_on_a(), reporter)
    _print_pairs("faster on B", comparison.faster_on_b(), reporter)


def _print_pairs(title: str, pairs: tuple[Pair, ...], reporter: Reporter) -> None:
    if not pairs:
        reporter.say(f"no unit is {title}")
        return
    latency = objective("latency")
    rows = [
        (pair.layer.key(), show(latency, pair.a_s), show(latency, pair.b_s), f"{pair.ratio:.3g}")
        for pair in pairs
    ]
    reporter.show(Table(("unit", "A", "B", "B / A"), rows, title, numbers=3))


def _print_networks(networks: dict[str, Any], comparison: Comparison, reporter: Reporter) -> None:
    tau, ratio = networks["kendall_tau"], networks["median_ratio"]
    reporter.say(
        f"{networks['space']} ({', '.join(networks['formats'])}): {networks['run_on_both']} of "
        f"{networks['sampled']} random networks run on both"
    )
    if tau is not None:
        reporter.say(
            f"Kendall's tau of their predicted latencies on {comparison.a} and on {comparison.b}: {tau:.3f}; "
            f"median ratio {ratio:.3g}"
        )
