"""Exact allocation of formats on a real space: against every policy of its smallest architecture."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.profile import DeviceProfile
from nas.allocation.allocation import Allocator, allocator, cost_sums, predicted_sensitivity, seeds
from nas.problem.costs import REJECTED, Costs, compile_costs
from nas.problem.targets import Targets, largest_costs, resolve_targets
from nas.run.config import RunConfig
from nas.search.algorithms.milp import formats_of
from nas.search.objectives import objective
from predictors.predictor import Prediction
from supernet.families.family import Family, load_family
from supernet.solvers.multiple_choice import total
from supernet.space.space import Genomes


@pytest.fixture(scope="module")
def costs(family: Family, device_profile: DeviceProfile) -> Costs:
    return compile_costs(family, device_profile)


def targets_of(family: Family, costs: Costs, **limits: str) -> Targets:
    return resolve_targets(replace(RunConfig(), constraints=limits), largest_costs(family, costs))


def corner(family: Family, name: str) -> Genomes:
    return np.array(family.extremes()[name].genes, np.int16)


def of(family: Family, costs: Costs, end: str = "smallest", **limits: str) -> Allocator:
    targets = targets_of(family, costs, **limits)
    return allocator(family.space(), costs, targets, corner(family, f"{end}/fp32"))


def policies(allocator: Allocator) -> list[np.ndarray]:
    return [np.array(each) for each in itertools.product(*map(range, allocator.formats.sizes))]


def random_damage(allocator: Allocator, seed: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {
        name: [0.0, *rng.lognormal(0, 2, size - 1)]
        for name, size in zip(allocator.names, allocator.formats.sizes, strict=True)
    }


@pytest.mark.parametrize(
    ("end", "formats"), [("smallest", None), ("largest", None), ("largest", ("fp32", "int8", "int4/int6"))]
)
def test_sums_over_formats_are_what_networks_cost(
    device_profile: DeviceProfile, family: Family, end: str, formats: tuple[str, ...] | None
) -> None:
    if formats:
        family = load_family("digits-mbconv", in_channels=1, classes=10, formats=formats)
    costs = compile_costs(family, None if formats else device_profile)
    chosen_from = formats_of(family.space(), corner(family, f"{end}/fp32"))
    sums = cost_sums(chosen_from, costs)
    chosen = np.random.default_rng(0).integers(0, chosen_from.sizes, (20, len(chosen_from.sizes)))
    expected = costs.predict(chosen_from.genomes(list(chosen)))
    for name in ("latency", "size", "macs"):
        found = [total(sums[name], each) for each in chosen]
        np.testing.assert_allclose(found, expected[name], rtol=1e-9)


def test_allocations_are_the_best_of_all_policies(family: Family, costs: Costs) -> None:
    """Every policy of the smallest architecture, under limits on latency, size and memory together."""
    every = policies(of(family, costs))
    values = costs.predict(of(family, costs).formats.genomes(every))
    bounds = {name: float(np.quantile(values[name], 0.4)) for name in ("latency", "size", "memory")}
    units = {"latency": "s", "size": "B", "memory": "B"}
    one = of(family, costs, **{name: f"{bound!r}{units[name]}" for name, bound in bounds.items()})
    met = np.all([values[name] <= bound * (1 + 1e-12) for name, bound in bounds.items()], axis=0)
    assert 20 < met.sum() < len(every) / 4
    for seed in range(3):
        damage = random_damage(one, seed)
        harm = np.array([total(one.problem(damage).costs, each) for each in every])
        [genome] = one.allocate(damage, 1)
        chosen = genome[list(one.formats.columns)]
        assert total(one.problem(damage).costs, chosen) == pytest.approx(harm[met].min())


def test_trade_offs_stay_within_the_limits(family: Family, costs: Costs) -> None:
    one = of(family, costs, "largest", size="60%", latency="95%")
    genomes = one.allocate(random_damage(one, 1), 7)
    assert len(np.unique(genomes, axis=0)) == 7
    largest, values = largest_costs(family, costs), costs.predict(genomes)
    assert (values["size"] <= 0.6 * largest["size"] * (1 + 1e-9)).all()
    assert (values["latency"] <= 0.95 * largest["latency"] * (1 + 1e-9)).all()
    assert values["latency"].min() < 0.99 * values["latency"][0]
    assert values["size"].min() < 0.8 * values["size"][0]


def test_confidence_leaves_a_margin(family: Family, costs: Costs) -> None:
    targets, genome = targets_of(family, costs, latency="95%"), corner(family, "largest/fp32")
    one = allocator(family.space(), costs, targets, genome, confidence=0.95)
    latency = costs.predict(one.allocate(random_damage(one, 2), 1))["latency"]
    bound = 0.95 * largest_costs(family, costs)["latency"]
    assert latency + 1.6448 * costs.latency_std(latency) <= bound
    assert latency + 3 * costs.latency_std(latency) > bound


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"size": "1KB"}, r"size <= 1 KB cannot be met by this architecture; the nearest possible .* KB"),
        ({"latency": "1us"}, r"latency <= 1 us cannot be met by this architecture; the nearest"),
        ({"memory": "10B"}, r"memory <= 10 B cannot be met by this architecture; the nearest"),
        ({"macs": "10"}, r"macs <= 10 cannot be met by this architecture; the nearest"),
        ({"latency": "135.2us", "size": "145KB"}, r"cannot be met by this architecture while the other"),
    ],
)
def test_what_cannot_be_met_is_said(
    family: Family, costs: Costs, limits: dict[str, str], message: str
) -> None:
    one = of(family, costs, "largest", **limits)
    with pytest.raises(TrilobitError, match=message):
        one.allocate(random_damage(one, 0), 3)


def test_the_nearest_memory_can_be_had(family: Family, costs: Costs) -> None:
    one = of(family, costs, memory="10B")
    with pytest.raises(TrilobitError) as caught:
        one.allocate(random_damage(one, 0), 1)
    least = costs.predict(one.formats.genomes(policies(one)))["memory"].min()
    assert f"the nearest possible value is {least:.3g} B:" in str(caught.value)


def test_units_that_the_device_rejects_are_avoided(family: Family, costs: Costs) -> None:
    one = of(family, costs)
    rejecting, rejected = costs.table.values.copy(), costs.columns.index(REJECTED)
    column = one.formats.columns[0]  # the stem
    at = costs.table.positions
    [part, *_] = np.flatnonzero(at.strides[column])
    rows = one.formats.genomes(policies(one))
    entries = (rows @ at.strides[:, part] + at.offsets[part]).astype(int)  # with neighbours that decide
    rejecting[entries[rows[:, column] == 0], rejected] = 1.0  # whatever is in fp32
    other = replace(costs, table=replace(costs.table, values=rejecting))
    genomes = of(family, other).allocate(random_damage(one, 0), 4)
    assert (genomes[:, column] == 1).all()
    rejecting[entries, rejected] = 1.0
    with pytest.raises(TrilobitError, match="cannot run this architecture"):
        of(family, other).allocate(random_damage(one, 0), 4)


def test_a_space_of_one_format_has_nothing_to_allocate() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32",))
    costs = compile_costs(family, None)
    with pytest.raises(TrilobitError, match="nothing to allocate"):
        of(family, costs)
    rows = corner(family, "largest/fp32")[None]
    assert len(seeds(family.space(), costs, targets_of(family, costs), Additive(family), rows)) == 0


class Additive:
    """Accuracy falls by an amount of its own for each layer that is not fp32."""

    def __init__(self, family: Family) -> None:
        self.lost = np.random.default_rng(0).random(len(family.space().choices)) / 100
        self.lost[[c.kind != "precision" for c in family.space().choices]] = 0

    def predict(self, genomes: Genomes) -> Prediction:
        return Prediction(0.9 - genomes @ self.lost, np.full(len(genomes), 0.01))


def test_damage_that_a_predictor_sees(family: Family) -> None:
    formats, predictor = formats_of(family.space(), corner(family, "smallest/fp32")), Additive(family)
    damage = predicted_sensitivity(family.space(), formats, predictor, objective("accuracy"))
    names = [family.space().choices[column].name for column in formats.columns]
    assert list(damage) == names
    for name, column in zip(names, formats.columns, strict=True):
        np.testing.assert_allclose(damage[name], [0.0, predictor.lost[column]], atol=1e-12)


def test_seeds_are_allocations_of_different_architectures(family: Family, costs: Costs) -> None:
    space, targets = family.space(), targets_of(family, costs, size="60%")
    rows = np.stack([corner(family, name) for name in ("largest/fp32", "largest/int8", "smallest/fp32")])
    found = seeds(space, costs, targets, Additive(family), rows)
    np.testing.assert_array_equal(space.canonical(found), found)
    assert len(np.unique(found, axis=0)) == len(found) == 8
    architecture = [choice.kind != "precision" for choice in space.choices]
    assert len(np.unique(found[:, architecture], axis=0)) == 2
    assert (targets.violation({**costs.predict(found), "accuracy": np.ones(8)}) == 0).all()
