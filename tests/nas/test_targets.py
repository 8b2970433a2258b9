"""Limits of a run: resolved, applied, and refused where nothing can meet them."""

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement
from hw_profiles.profiles.profile import DeviceProfile
from nas.problem.costs import Costs, compile_costs
from nas.problem.reachable import check_reachable, worst_costs
from nas.problem.targets import (
    is_feasible_on_device,
    largest_costs,
    limit_lines,
    predict_values,
    resolve_targets,
)
from nas.run.config import RunConfig, SearchSection
from nas.search.loop import search
from nas.search.objectives import Values, objective
from nas.search.searcher import make_searcher
from nas.search.units import show
from supernet.families.family import Family
from supernet.space.space import Genomes

LARGEST = {"latency": 2e-4, "size": 1e6, "macs": 3e6, "memory": 6e4}


@pytest.fixture(scope="session")
def costs(family: Family, device_profile: DeviceProfile) -> Costs:
    return compile_costs(family, device_profile)


def limited(**constraints: str) -> RunConfig:
    return replace(RunConfig(), constraints=constraints)


def bounds(config: RunConfig) -> dict[str, float | None]:
    targets = resolve_targets(config, LARGEST)
    return {o.name: o.bound for o in (*targets.objectives, *targets.limited)}


def test_limits_are_absolute_or_shares_of_the_largest_network() -> None:
    found = bounds(limited(latency="0.1ms", size="60%", macs="50%", memory="32KB"))
    assert found == {
        "accuracy": None,
        "latency": pytest.approx(1e-4),
        "size": pytest.approx(6e5),
        "macs": pytest.approx(1.5e6),
        "memory": pytest.approx(3.2e4),
    }


def test_a_limit_is_said_with_what_its_percentage_is_of() -> None:
    config = limited(latency="60%", size="200KB")
    said = limit_lines(config, resolve_targets(config, LARGEST), LARGEST)
    assert said == [
        "limit: latency <= 120 us: 0.6 x the 200 us predicted for the largest in fp32",
        "limit: size <= 200 KB",
    ]


def test_objectives_keep_their_order_and_limits_need_not_be_objectives() -> None:
    config = replace(limited(macs="2M"), search=SearchSection(objectives=("size", "accuracy")))
    targets = resolve_targets(config, LARGEST)
    assert [o.name for o in targets.objectives] == ["size", "accuracy"]
    assert [o.name for o in targets.bounded] == ["macs"]


def test_a_share_of_something_unknown_is_refused() -> None:
    with pytest.raises(TrilobitError, match="this device gives no energy"):
        resolve_targets(limited(energy="50%"), LARGEST)


def test_an_objective_that_the_device_does_not_give_is_refused() -> None:
    targets = resolve_targets(replace(RunConfig(), search=SearchSection(objectives=("energy",))), LARGEST)
    with pytest.raises(TrilobitError, match="no energy; objectives it has: size"):
        targets.minimised({"size": np.ones(1)})


def test_violation_is_zero_exactly_within_all_limits() -> None:
    targets = resolve_targets(limited(latency="0.1ms", size="60%"), LARGEST)
    values = {"latency": np.array([1e-4, 1e-4, 2e-4]), "size": np.array([6e5, 7e5, 1.0])}
    assert (targets.violation(values) > 0).tolist() == [False, True, True]
    assert not resolve_targets(RunConfig(), LARGEST).violation(values).any()


def test_minimised_values_are_less_where_they_are_better() -> None:
    targets = resolve_targets(RunConfig(), LARGEST)
    worse, better = targets.minimised(
        {"accuracy": np.array([0.5, 0.9]), "latency": np.array([2.0, 1.0]), "size": np.array([2.0, 1.0])}
    )
    assert (better < worse).all()


@pytest.mark.parametrize("name", ["latency", "size", "macs", "memory"])
def test_an_unreachable_limit_names_a_value_that_can_be_reached(
    family: Family, costs: Costs, name: str
) -> None:
    least = check_reachable(family, costs, resolve_targets(limited(**{name: "100%"}), LARGEST), seed=0)[name]
    tight = resolve_targets(limited(**{name: "100%"}), {**LARGEST, name: 0.5 * least})
    with pytest.raises(TrilobitError, match=f"{name} <= .* cannot be met") as refused:
        check_reachable(family, costs, tight, seed=0)
    assert str(refused.value).endswith(f"the nearest reachable value is {show(objective(name), least)}")
    met = resolve_targets(limited(**{name: "100%"}), {**LARGEST, name: 1.01 * least})
    assert check_reachable(family, costs, met, seed=0)[name] == least


def test_the_least_is_not_above_any_network(family: Family, costs: Costs) -> None:
    targets = resolve_targets(limited(latency="1s"), LARGEST)
    genomes = family.space().sample(5000, rng=np.random.default_rng(0))
    assert (
        check_reachable(family, costs, targets, seed=0)["latency"] <= costs.predict(genomes)["latency"].min()
    )


def test_the_largest_network_has_the_most_of_what_counts(family: Family, costs: Costs) -> None:
    largest = largest_costs(family, costs)
    sampled = costs.predict(family.space().sample(2000, rng=np.random.default_rng(0)))
    assert all(largest[name] >= sampled[name].max() for name in ("size", "macs", "memory"))


def test_without_a_predictor_there_is_no_accuracy(family: Family, costs: Costs) -> None:
    genomes = family.space().sample(3, rng=np.random.default_rng(0))
    assert "accuracy" not in predict_values(costs, None, genomes)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency", 3.1e-4, "310 us"),
        ("latency", 2.0, "2 s"),
        ("latency", 1e-9, "0.001 us"),
        ("size", 999, "999 B"),
        ("size", 1.5e6, "1.5 MB"),
        ("memory", 32_000, "32 KB"),
        ("macs", 12, "12"),
        ("accuracy", 0.9876, "98.76 %"),
        ("accuracy", 0.0, "0.00 %"),
    ],
)
def test_values_as_people_write_them(name: str, value: float, text: str) -> None:
    assert show(objective(name), value) == text


# -- devices that cannot run every network ---------------------------------------------------------


def without(profile: DeviceProfile, *formats: str) -> DeviceProfile:
    """The same device without depthwise kernels in some formats."""

    def lacks(layer: Layer) -> bool:
        return layer.depthwise and layer.activation_format in formats

    rows = profile.table.items()
    table = {layer: Measurement(error="no kernel") if lacks(layer) else row for layer, row in rows}
    return replace(profile, table=table)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("searcher", "objectives"),
    [
        ("evolution", ("latency", "size")),
        ("evolution", ("memory",)),
        ("nsga2", ("size", "macs")),
        ("random", ("memory",)),
    ],
)
def test_no_network_on_a_front_has_a_rejected_unit(
    family: Family, device_profile: DeviceProfile, searcher: str, objectives: tuple[str, ...]
) -> None:
    costs = compile_costs(family, without(device_profile, "int8"))
    targets = resolve_targets(replace(RunConfig(), search=SearchSection(objectives=objectives)), LARGEST)
    corners = np.array([c.genes for c in family.extremes().values()], np.int16)

    def evaluate(genomes: Genomes) -> tuple[Values, Values]:
        values = costs.predict(genomes)
        return targets.minimised(values), targets.violation(values)

    asked = make_searcher(searcher, family.space(), seed=0, initial=corners)
    reference = [worst_costs(family, costs, seed=0)[name] * 1.1 for name in objectives]
    result = search(asked, evaluate, budget=2_000, batch=500, reference=reference)
    assert len(result.genomes)
    assert is_feasible_on_device(costs.predict(result.genomes)).all()
    assert np.isfinite(result.hypervolumes).all()
    assert result.hypervolumes[-1] > 0


def test_a_share_of_a_network_that_the_device_cannot_run_is_refused(
    family: Family, device_profile: DeviceProfile
) -> None:
    largest = largest_costs(family, compile_costs(family, without(device_profile, "fp32")))
    assert resolve_targets(limited(latency="1ms", size="60%"), largest).bounded
    with pytest.raises(TrilobitError, match=r"cannot run the largest network in fp32.*give a number"):
        resolve_targets(limited(latency="60%"), largest)


def test_the_least_and_the_most_are_of_networks_that_run(
    family: Family, device_profile: DeviceProfile
) -> None:
    costs = compile_costs(family, without(device_profile, "int8"))
    targets = resolve_targets(limited(latency="1s", memory="1MB"), LARGEST)
    least, most = check_reachable(family, costs, targets, seed=0), worst_costs(family, costs, seed=0)
    assert all(0 < least[name] < most[name] < np.inf for name in ("latency", "memory"))
    smallest = compile_costs(family, device_profile).predict(
        np.array([family.extremes()["smallest/int8"].genes], np.int16)
    )
    assert least["memory"] > smallest["memory"][0]


def test_a_device_that_runs_nothing_says_so(family: Family, device_profile: DeviceProfile) -> None:
    costs = compile_costs(family, without(device_profile, "int8", "fp32"))
    targets = resolve_targets(limited(latency="1s"), LARGEST)
    for find in (
        lambda: worst_costs(family, costs, seed=0),
        lambda: check_reachable(family, costs, targets, seed=0),
    ):
        with pytest.raises(TrilobitError, match="rejects some unit of every network"):
            find()


def test_a_limit_on_something_that_the_device_does_not_give_is_refused(family: Family, costs: Costs) -> None:
    targets = resolve_targets(limited(energy="1mJ"), LARGEST)
    with pytest.raises(TrilobitError, match="no energy; objectives it has: arena, flash, latency, macs"):
        check_reachable(family, costs, targets, seed=0)


# -- metrics besides the main one ------------------------------------------------------------------


def test_a_metric_that_is_only_measured_limits_what_was_measured() -> None:
    targets = resolve_targets(limited(flips="2%"), LARGEST)
    costs = {"latency": np.array([1.0, 1.0]), "size": np.array([1.0, 1.0]), "accuracy": np.array([0.9, 0.9])}
    assert targets.violation(costs).tolist() == [0, 0]  # predicted: nothing is known of it
    missed = targets.violation({**costs, "flips": np.array([0.01, 0.03])})
    np.testing.assert_allclose(missed, [0, 0.5])
    unknown = targets.violation({**costs, "flips": np.array([0.01, np.nan])})
    assert unknown.tolist() == [0, np.inf]


def test_a_metric_that_is_only_measured_cannot_be_searched_for() -> None:
    config = replace(RunConfig(), search=SearchSection(objectives=("flips", "latency")))
    with pytest.raises(TrilobitError, match="flips is known of measured networks only"):
        resolve_targets(config, LARGEST)
