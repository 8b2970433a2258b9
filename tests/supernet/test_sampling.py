"""Progressive shrinking in every registered family: what is elastic when."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hw_profiles.registry import names
from supernet.families.family import FAMILIES, Family, load_family
from supernet.space.space import Candidate, SearchSpace
from supernet.train.config import TrainConfig
from supernet.train.sampling import (
    ALONE,
    closed_dimensions,
    limited,
    resolution_options,
    shrinking,
    step_archs,
)

DRAWN = 60
BEGINNING, END = ALONE, 1 - 1e-9  # of shrinking


@dataclass(frozen=True)
class Candidates:
    """A family whose architectures are the candidates themselves, for tests to look at."""

    family: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def arch(self, candidate: Candidate) -> Candidate:
        return candidate


@pytest.fixture(scope="module", params=sorted(names("trilobit.spaces", FAMILIES)))
def each_family(request: pytest.FixtureRequest) -> Candidates:
    return Candidates(load_family(request.param, in_channels=3, classes=10))


def dimensions(space: SearchSpace) -> set[str]:
    return {c.role for c in space.choices if c.kind != "precision"} - {"resolution", "length"}


def values(space: SearchSpace, drawn: list[Candidate]) -> dict[str, list[set[int]]]:
    """By dimension and choice of several options, the genes that occur where the choice is alive."""
    genomes = np.array([candidate.genes for candidate in drawn], np.int16)
    living = space.active(genomes)
    genes: dict[str, list[set[int]]] = {}
    for column, choice in enumerate(space.choices):
        if choice.kind != "precision" and len(choice.options) > 1:
            genes.setdefault(choice.role, []).append(set(genomes[living[:, column], column].tolist()))
    return genes


def test_the_largest_is_alone_at_first(each_family: Family) -> None:
    for done in (0.0, ALONE / 2, ALONE - 1e-9):
        assert shrinking(each_family, 5, done, rng=np.random.default_rng(0)) == [
            each_family.extremes()["largest/fp32"]
        ]
        assert set(closed_dimensions(each_family.space(), done)) == dimensions(each_family.space())


def test_dimensions_open_one_after_the_other(each_family: Family) -> None:
    space = each_family.space()
    closed = [closed_dimensions(space, done) for done in np.linspace(BEGINNING, END, 97)]
    steps = list(dict.fromkeys(closed))
    assert [len(names) for names in steps] == list(range(max(len(dimensions(space)) - 1, 0), -1, -1))
    for before, after in pairwise(steps):
        assert before[1:] == after
    assert max(closed.count(names) for names in steps) - min(closed.count(names) for names in steps) <= 1


@pytest.mark.parametrize("done", [BEGINNING, 0.55, 0.65, 0.75, 0.85, 0.95, END])
def test_closed_dimensions_stay_at_the_largest_and_open_ones_vary(each_family: Family, done: float) -> None:
    space, largest = each_family.space(), each_family.extremes()["largest/fp32"]
    config = TrainConfig(schedule="shrinking", random_subnets=DRAWN)
    first, *drawn = step_archs(each_family, config, 0, done, seed=1)
    assert first == largest
    assert len(drawn) == DRAWN
    closed, found = closed_dimensions(space, done), values(space, drawn)
    widest = values(space, [largest])
    for name in closed:
        assert found.get(name) == widest.get(name), name
    for name in set(found) - set(closed):
        assert all(len(genes) > 1 for genes in found[name]), name


def test_kernels_open_first_then_depths_and_widths_last(each_family: Family) -> None:
    order = list(closed_dimensions(each_family.space(), 0.0))
    assert order == sorted(order, key=lambda name: {"kernel": 0, "depth": 1, "width": 3}.get(name, 2))


def test_deep_blocks_draw_as_evenly_as_others() -> None:
    family: Any = Candidates(load_family("digits-mbconv", in_channels=1, classes=10))
    space = family.space()
    _, *drawn = shrinking(family, 900, BEGINNING, rng=np.random.default_rng(0))
    deepest = space.columns["s2.b3.kernel"]  # alive in a quarter of the networks of the whole space
    counts = np.bincount([candidate.genes[deepest] for candidate in drawn], minlength=3)
    assert counts.min() > 0.8 * 300


def test_the_largest_schedule_has_no_other() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    largest = family.arch(family.extremes()["largest/fp32"])
    config = TrainConfig(schedule="largest", random_subnets=3)
    assert step_archs(family, config, 0, 0.9, seed=0) == [largest]


# -- fewer networks, smaller images ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_family() -> Any:
    return Candidates(load_family("digits-mbconv", in_channels=1, classes=10))


def drawn_at(family: Any, config: TrainConfig, step: int, done: float = 0.5) -> list[Candidate]:
    return step_archs(family, config, step, done, seed=0)


@pytest.mark.parametrize("others", [1, 3])
def test_every_second_step_has_the_smallest(digits_family: Any, others: int) -> None:
    config, ends = TrainConfig(schedule="alternating", random_subnets=others), digits_family.extremes()
    for step in range(6):
        first, *rest = drawn_at(digits_family, config, step)
        assert first == ends["largest/fp32"]
        assert len(rest) == others
        assert (rest[-1] == ends["smallest/fp32"]) == (step % 2 == 1)


@pytest.mark.parametrize("schedule", ["sandwich", "alternating"])
def test_the_largest_may_be_alone_at_first(digits_family: Any, schedule: str) -> None:
    config = TrainConfig(schedule=schedule, alone=0.3)
    assert len(drawn_at(digits_family, config, 0, 0.29)) == 1
    assert len(drawn_at(digits_family, config, 0, 0.3)) > 1


def test_no_network_exceeds_the_resolution_of_the_time(each_family: Any) -> None:
    sizes = resolution_options(each_family)
    config = TrainConfig(random_subnets=20, first_resolution=sizes[len(sizes) // 2], full_resolution_at=0.5)
    seen = []
    for done in (0.0, 0.2, 0.4, 0.5, 1.0):
        networks = drawn_at(each_family, config, 7, done)
        seen.append(max(map(each_family.resolution, networks)))
        assert each_family.resolution(networks[0]) == seen[-1]  # the largest is as large as it may be
    assert seen == sorted(seen)
    assert seen[0] == config.first_resolution
    assert seen[-2:] == [sizes[-1]] * 2
    free = drawn_at(each_family, TrainConfig(random_subnets=20), 7, 0.0)
    for network, other in zip(drawn_at(each_family, config, 7, 0.0), free, strict=True):
        assert limited(each_family, other, seen[0]) == network
