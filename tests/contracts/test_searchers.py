"""Every registered searcher keeps the promises of `nas.testing.check_searcher`, and learns."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import names
from nas.search.loop import search
from nas.search.searcher import SEARCHERS, MakeSearcher, make_searcher
from nas.testing import check_searcher
from nas.testing.searcher import LARGE, SMALL, evaluate

ALL = sorted(names("trilobit.searchers", SEARCHERS))
# Optuna's TPE builds each proposal in 15 ms and more; tests/nas/search/test_optuna_samplers.py has quick ones
SLOW = {"tpe": pytest.mark.slow}


def marked(searchers: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=SLOW.get(name, ())) for name in sorted(searchers)]


@pytest.mark.parametrize("promise", check_searcher.promises)
@pytest.mark.parametrize("name", marked(ALL))
def test_keeps_its_promises(name: str, promise: Callable[[MakeSearcher], None]) -> None:
    promise(partial(make_searcher, name))


@pytest.mark.parametrize("name", marked(set(SEARCHERS) - {"random"}))
def test_learning_beats_chance(name: str) -> None:
    ours, chance = (
        search(make_searcher(kind, LARGE, seed=0), evaluate, budget=1000, batch=50, reference=[40.0, 40.0])
        for kind in (name, "random")
    )
    assert ours.hypervolumes[-1] > 1.05 * chance.hypervolumes[-1]


def test_unknown_searchers_are_refused() -> None:
    with pytest.raises(
        TrilobitError, match="unknown searcher 'luck'; known: aging, evolution, local-moves, nsga2"
    ):
        make_searcher("luck", SMALL, seed=0)
