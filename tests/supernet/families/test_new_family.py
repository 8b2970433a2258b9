"""A family of somebody else, as docs/recipes/family.md has it, keeps all promises of the registered ones."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from hw_profiles.errors import TrilobitError
from predictors.table import compile_table
from supernet.families.family import Family
from supernet.space.space import Choice
from supernet.space.varying import elementwise
from tests.contracts import test_families as contract

PAGE = Path(__file__).parents[3] / "docs/recipes/family.md"
LONGEST = 65  # lines of a small family
PROMISES = [
    contract.test_its_peak_terms_give_the_memory_of_its_workloads,
    contract.test_extracted_networks_compute_what_the_supernet_computes,
    contract.test_workloads_run_on_the_supernets_own_layers,
    contract.test_extracted_networks_are_copies,
    contract.test_no_network_is_remembered_from_one_forward_to_the_next,
    contract.test_the_seed_decides_the_first_weights,
    contract.test_fp32_files_compute_what_torch_computes,
    contract.test_gradients_reach_every_parameter_of_the_deepest_networks,
]


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    """The module of the recipe."""
    code = re.search(r"```python\n(# plain_family\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    assert len(code[1].splitlines()) <= LONGEST
    module = type(sys)("plain_family")
    sys.modules[module.__name__] = module
    exec(compile(code[1], str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


@pytest.fixture(scope="module")
def each_family(plain: Any) -> Family:
    family: Family = plain.PlainFamily(contract.CHANNELS, contract.CLASSES, ("fp32", "int8", "int4"))
    return family


net = contract.net


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_new_family_keeps(promise: Callable[..., None], each_family: Family, net: nn.Module) -> None:
    given = {"each_family": each_family, "net": net}
    promise(**{name: given[name] for name in inspect.signature(promise).parameters})


def test_its_cost_terms_add_up_to_its_workloads(each_family: Family) -> None:
    space = each_family.space()
    genomes, keys = space.sample(200, rng=np.random.default_rng(0)), dict[str, int]()

    def number(layer: Any) -> float:
        return 1.0 + keys.setdefault(layer.key(), len(keys)) ** 2

    found = compile_table(space, each_family.terms(), [number])(genomes)[:, 0]
    works = [each_family.workload(space.candidate(genome)) for genome in genomes]
    np.testing.assert_array_equal(found, [sum(map(number, work.layers)) for work in works])


def test_a_branch_on_what_is_not_chosen_says_what_to_write_instead(plain: Any) -> None:
    class Branching(plain.PlainFamily):  # type: ignore[name-defined, misc]
        def build(self, net: Any, choose: Any) -> None:
            if choose("s0.width") > 8:
                super().build(net, choose)

    with pytest.raises(TrilobitError, match=r"choose\.when.*choose\.repeat.*@elementwise"):
        Branching(1, 10).terms()


def test_a_layer_that_depends_on_too_many_choices_is_refused(plain: Any) -> None:
    @elementwise
    def summed(*numbers: int) -> int:
        return sum(numbers)

    class Wide(plain.PlainFamily):  # type: ignore[name-defined, misc]
        def choices(self) -> Iterator[Choice]:
            yield from super().choices()
            yield from (Choice(f"c{i}", tuple(range(1, 9))) for i in range(8))

        def build(self, net: Any, choose: Any) -> None:
            width = summed(*(choose(f"c{i}") for i in range(8)))
            net.linear(
                "classifier", net.global_pool("pool", net.conv("wide", net.input, width)), self.classes
            )

    with pytest.raises(ValueError, match="16777216 combinations of options"):
        Wide(1, 10).terms()
