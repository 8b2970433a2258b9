"""Which choices set formats, and policies drawn from them."""

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family, load_family
from supernet.space.space import Genomes
from supernet.train.policies import (
    Policies,
    find_policies,
    nearest_total,
    switching_probabilities,
)


@pytest.fixture(scope="module")
def policies(digits: Family) -> Policies:
    return find_policies(digits)


def widths_of(family: Family, genome: Genomes) -> dict[str, str]:
    space = family.space()
    policy = family.policy(space.candidate(space.canonical(genome[None])[0]))
    return {name: precision.weight for name, precision in policy.items()}


def test_every_layer_has_a_choice_without_its_floating_point_option(
    digits: Family, policies: Policies
) -> None:
    named = [digits.space().choices[choice.column].name for choice in policies.choices]
    assert named == [f"{layer}.format" for choice in policies.choices for layer in choice.layers]
    assert all(choice.bits == (8, 6, 4, 2, 8, 4) and choice.weights for choice in policies.choices)
    assert policies.widths == (8, 6, 4, 2)


def test_shared_and_separate_choices_are_found_in_other_families() -> None:
    """APQ chooses widths of weights and of activations by themselves, for two convolutions at once."""
    found = find_policies(load_family("apq-proxyless", in_channels=3, classes=10))
    assert found.widths == (8, 6, 4)
    first = [choice for choice in found.choices if choice.layers[0].startswith("s0.b0.")]
    assert [(choice.layers, choice.weights) for choice in first] == [
        (("s0.b0.expand", "s0.b0.project"), True),
        (("s0.b0.expand", "s0.b0.project"), False),
        (("s0.b0.depthwise",), True),
        (("s0.b0.depthwise",), False),
    ]
    assert len(found.columns) > len(found.choices)  # the one that makes whole networks integer


def test_a_space_without_integers_has_none() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32",))
    with pytest.raises(TrilobitError, match="digits-mbconv has no integer formats to train for"):
        find_policies(family)


@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_uniform_policies_are_uniform_and_keep_the_architecture(
    digits: Family, policies: Policies, bits: int
) -> None:
    rng = np.random.default_rng(0)
    for genome in digits.space().sample(5, rng=rng):
        drawn = policies.uniform(genome, bits, rng=rng)
        assert set(widths_of(digits, drawn).values()) == {f"int{bits}"}
        space = digits.space()
        one, other = (space.candidate(space.canonical(g[None])[0]) for g in (genome, drawn))
        assert digits.arch(one) == digits.arch(other)


def test_a_width_that_there_is_not_becomes_the_nearest() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=("int8", "int4"))
    found = find_policies(family)
    drawn = found.uniform(found.base, 2, rng=np.random.default_rng(0))
    assert set(widths_of(family, drawn).values()) == {"int4"}


def test_layers_that_mind_take_wide_formats_more_often(digits: Family, policies: Policies) -> None:
    rng = np.random.default_rng(0)
    traces = {layer: 0.1 for choice in policies.choices for layer in choice.layers} | {"head": 9.0}
    column = {digits.space().choices[c.column].name: c for c in policies.choices}
    counts = {name: np.zeros(9) for name in ("head.format", "stem.format")}
    for _ in range(800):
        genome = policies.switched(policies.base, traces, rng=rng)
        for name, count in counts.items():
            choice = column[name]
            count[choice.bits[choice.genes.index(int(genome[choice.column]))]] += 1 / 800
    # of 8, 6, 4, 2, 8 and 4 bits
    np.testing.assert_allclose(counts["stem.format"][[2, 4, 6, 8]], [1 / 6, 2 / 6, 1 / 6, 2 / 6], atol=0.06)
    np.testing.assert_allclose(counts["head.format"][[2, 4, 6, 8]], np.array([2, 8, 6, 16]) / 32, atol=0.06)


def test_the_published_example_of_switching() -> None:
    np.testing.assert_allclose(switching_probabilities((2, 4, 6, 8), sensitive=True), [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(switching_probabilities((2, 4, 6, 8), sensitive=False), [0.25] * 4)


@pytest.mark.parametrize("average", [2.0, 3.3, 5.0, 8.0])
def test_allocated_policies_have_the_average_and_spare_what_minds(
    digits: Family, policies: Policies, average: float
) -> None:
    layers = [layer for choice in policies.choices for layer in choice.layers]
    mind = {layer: float(i) for i, layer in enumerate(layers)}
    sensitivities = {
        bits: {layer: mind[layer] * 4.0 ** (8 - bits) for layer in layers} for bits in (8, 6, 4, 2)
    }
    genome = policies.allocated(policies.base, sensitivities, average)
    found = [int(width.removeprefix("int")) for width in widths_of(digits, genome).values()]
    assert np.mean(found) == pytest.approx(average, abs=1 / len(found))
    assert found == sorted(found)


def test_the_nearest_sum_is_one_that_there_is() -> None:
    assert nearest_total([(8, 4), (8, 4)], 6.0) == 12
    assert nearest_total([(8, 4), (8, 4)], 5.9) == 12
    assert nearest_total([(8,), (8, 4)], 2.0) == 12
