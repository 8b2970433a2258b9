"""Tables against the sum over workload rows and against the peak of the workload, which they must equal
exactly.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.memory import peak_bytes
from predictors import table
from predictors.table import (
    beside,
    compile_peak,
    compile_table,
    distinct_layers,
    gene_table,
    option_costs,
)
from supernet.families.family import FAMILIES, CostTerm, Family, load_family
from supernet.families.mbconv import MBConvFamily, Stage

COSTS = (macs, params, lambda layer: float(layer.kind in ("quantize", "dequantize")))
NARROW = ("int4", "int6/int6", "fp32", "int2/int4")  # with changes between integer formats
SLOW = pytest.param(NARROW, marks=pytest.mark.slow)


OWN_FORMATS_ASIDE = set(FAMILIES) - {"apq-proxyless"}
WIDER = {"ofa-mbv3-w1.2"}  # differs from another family in its channels only


def named(name: str) -> Any:
    """A family's name as a parameter, for the slow tests where another one is tried in its place."""
    return pytest.param(name, marks=[pytest.mark.slow] * (name in WIDER))


def summed(family: Family, genomes: np.ndarray) -> np.ndarray:
    """(n, k) costs added up layer by layer."""
    loads = [family.workload(family.space().candidate(genome)) for genome in genomes]
    return np.array([[sum(cost(layer) for layer in load.layers) for cost in COSTS] for load in loads], float)


def peaks(family: Family, genomes: np.ndarray) -> list[int]:
    """(n,) bytes, from each workload."""
    return [peak_bytes(family.workload(family.space().candidate(genome))) for genome in genomes]


def stages() -> st.SearchStrategy[Stage]:
    depths = st.sampled_from([(1,), (1, 2), (2, 3), (1, 3)])
    expanded = st.sampled_from([(8,), (8, 16), (16, 24)])
    return st.builds(
        Stage, st.sampled_from([8, 16]), st.sampled_from([1, 2]), depths, expanded, st.just((3, 5))
    )


def small_families() -> st.SearchStrategy[MBConvFamily]:
    return st.builds(
        MBConvFamily,
        name=st.just("drawn"),
        resolutions=st.sampled_from([(8,), (9, 16)]),
        stem_width=st.just(8),
        stages=st.lists(stages(), min_size=1, max_size=3).map(tuple),
        head_width=st.just(16),
        in_channels=st.sampled_from([1, 3]),
        classes=st.just(4),
        formats=st.sampled_from([("fp32", "int8"), NARROW]),
    )


@pytest.mark.parametrize("name", [*map(named, FAMILIES)])
def test_equals_the_sum_over_workload_rows(name: str) -> None:
    family = load_family(name, in_channels=3, classes=10)
    genomes = family.space().sample(20, rng=np.random.default_rng(0))
    costs = compile_table(family.space(), family.terms(), COSTS)(genomes)
    np.testing.assert_array_equal(costs, summed(family, genomes))


@settings(max_examples=8, deadline=None)
@given(family=small_families(), seed=st.integers(0, 99))
def test_equals_the_sum_in_any_small_family(family: MBConvFamily, seed: int) -> None:
    genomes = family.space().sample(8, rng=np.random.default_rng(seed))
    costs = compile_table(family.space(), family.terms(), COSTS)(genomes)
    np.testing.assert_array_equal(costs, summed(family, genomes))


@pytest.mark.parametrize("formats", [("int4", "fp32", "int8"), SLOW])
@pytest.mark.parametrize("name", [*map(named, sorted(OWN_FORMATS_ASIDE))])  # its formats are its own
def test_equals_the_peak_of_the_workload(name: str, formats: tuple[str, ...]) -> None:
    family = load_family(name, in_channels=3, classes=10, formats=formats)
    genomes = family.space().sample(60, rng=np.random.default_rng(0))
    found = compile_peak(family.space(), family.peak_terms())(genomes)
    np.testing.assert_array_equal(found, peaks(family, genomes))
    assert np.unique(found).size > 1


@pytest.mark.parametrize("formats", [("fp32", "int8"), ("fp32", "fp16")])
def test_equals_the_peak_in_other_formats(formats: tuple[str, ...]) -> None:
    family = load_family("digits-mbconv", in_channels=3, classes=10, formats=formats)
    genomes = family.space().sample(60, rng=np.random.default_rng(0))
    found = compile_peak(family.space(), family.peak_terms())(genomes)
    np.testing.assert_array_equal(found, peaks(family, genomes))


@settings(max_examples=8, deadline=None)
@given(family=small_families(), seed=st.integers(0, 99))
def test_equals_the_peak_in_any_small_family(family: MBConvFamily, seed: int) -> None:
    genomes = family.space().sample(8, rng=np.random.default_rng(seed))
    found = compile_peak(family.space(), family.peak_terms())(genomes)
    np.testing.assert_array_equal(found, peaks(family, genomes))


def test_a_term_of_too_many_genes_is_refused() -> None:
    space = load_family("digits-mbconv", in_channels=1, classes=10).space()
    everything = CostTerm(tuple(range(len(space.choices))), ())
    with pytest.raises(ValueError, match="split it into terms of fewer genes"):
        compile_table(space, [everything], (macs,))


def test_rows_do_not_depend_on_the_chunk_they_fall_in(monkeypatch: pytest.MonkeyPatch) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    costs = compile_table(family.space(), family.terms(), COSTS)
    memory = compile_peak(family.space(), family.peak_terms())
    genomes = family.space().sample(21, rng=np.random.default_rng(1))
    whole, peak = costs(genomes), memory(genomes)
    monkeypatch.setattr(table, "CHUNK", 7)
    for n in (0, 1, 6, 7, 8, 21):
        np.testing.assert_array_equal(costs(genomes[:n]), whole[:n])
        np.testing.assert_array_equal(memory(genomes[:n]), peak[:n])
        assert (costs(genomes[:n]).shape, memory(genomes[:n]).shape) == ((n, len(COSTS)), (n,))


def test_a_table_without_costs_or_terms_is_empty() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    genomes = family.space().sample(3, rng=np.random.default_rng(0))
    assert compile_table(family.space(), family.terms(), ())(genomes).shape == (3, 0)
    np.testing.assert_array_equal(compile_table(family.space(), (), (macs,))(genomes), np.zeros((3, 1)))
    np.testing.assert_array_equal(compile_peak(family.space(), ())(genomes), np.zeros(3))


def test_distinct_layers_are_those_of_all_networks() -> None:
    family = MBConvFamily("tiny", (8,), 8, (Stage(8, 1, (1, 2), (8,), (3, 5)),), 16, 1, 4)
    space = family.space()
    every = np.array(list(itertools.product(*(range(k) for k in space.cardinalities))), np.int16)
    every = every[(every == space.canonical(every)).all(axis=1)]
    found = {layer for genome in every for layer in family.workload(space.candidate(genome)).layers}
    listed = distinct_layers(space, family.terms())
    assert set(listed) == found
    assert list(listed) == sorted(found, key=Layer.key)


@pytest.mark.parametrize("name", ["digits-mbconv", "apq-proxyless"])
def test_costs_of_single_choices_add_up_over_living_ones(name: str) -> None:
    space = load_family(name, in_channels=3, classes=10).space()
    rng = np.random.default_rng(0)
    formats = [choice for choice in space.choices if choice.kind == "precision"]
    options = {
        choice.name: rng.random(len(choice.options)).tolist() for choice in formats
    }  # the first ones cost too
    genomes = space.sample(50, rng=rng)
    expected = [
        sum(
            options[choice.name][gene]
            for choice, gene, alive in zip(space.choices, genome, living, strict=True)
            if alive and choice.name in options
        )
        for genome, living in zip(genomes, space.active(genomes), strict=True)
    ]
    np.testing.assert_allclose(gene_table(space, options)(genomes)[:, 0], expected)


def test_tables_stand_beside_one_another() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    space, genomes = family.space(), family.space().sample(40, rng=np.random.default_rng(0))
    layers = compile_table(space, family.terms(), (macs, params))
    genes = gene_table(space, {"stem.format": (0.0, 3.0), "s1.b3.project.format": (0.0, 2.0)})
    both = beside(layers, genes)
    np.testing.assert_array_equal(both(genomes), np.hstack((layers(genomes), genes(genomes))))
    assert (both.least > 0).tolist() == [True, True, False]
    assert (both.least[:2] <= layers(genomes).min(axis=0)).all()
    assert gene_table(space, {}).least.tolist() == [0.0]


@pytest.mark.parametrize("name", ["digits-mbconv", "apq-proxyless"])
def test_what_an_option_adds_is_what_it_was_given(name: str) -> None:
    """Also of choices that others keep alive."""
    space, rng = load_family(name, in_channels=3, classes=10).space(), np.random.default_rng(0)
    formats = [choice for choice in space.choices if choice.kind == "precision"]
    options = {choice.name: rng.random(len(choice.options)).tolist() for choice in formats}
    table = gene_table(space, options)
    leaves = [n for n in options if not any(n == p for c in space.choices for p, _ in c.active_if)]
    for one in leaves:
        expected = np.array(options[one]) - options[one][0]
        np.testing.assert_allclose(option_costs(table, space, one)[:, 0], expected)
