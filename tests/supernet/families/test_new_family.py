"""A family of somebody else, as docs/recipes/family.md has it, keeps all promises of the registered ones."""

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from nas.testing.family import FAMILY, FamilyCase
from supernet.space.space import Choice
from supernet.space.varying import elementwise

PAGE = Path(__file__).parents[3] / "docs/recipes/family.md"
LONGEST = 65  # lines of a small family


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
def case(plain: Any) -> FamilyCase:
    return FamilyCase(partial(plain.PlainFamily, formats=("fp32", "int8", "int4")))


@pytest.mark.parametrize("promise", FAMILY.promises)
def test_a_new_family_keeps_the_promises(promise: Callable[[FamilyCase], None], case: FamilyCase) -> None:
    promise(case)


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
