"""Evaluating alone and together: the same results in the same order, whoever does the work."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.evaluation.sharing import Study, agree, differences, work_off
from nas.evaluation.store import EvaluationStore, Result
from nas.search.objectives import objective
from supernet.families.family import load_family
from supernet.space.space import Candidate

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
IDENTITY = {"space": "digits", "train": {"epochs": 8}}
DEADLINE_S = 60
Evaluate = Callable[[Sequence[Candidate]], Iterator[Result]]


def candidates(n: int) -> list[Candidate]:
    return [SPACE.candidate(genome) for genome in SPACE.sample(n, rng=np.random.default_rng(0))]


def accuracy(candidate: Candidate) -> float:
    return int(candidate.id, 16) / 16 ** len(candidate.id)


class Evaluated:
    """Evaluates by a formula, and remembers what."""

    def __init__(self) -> None:
        self.seen: list[Candidate] = []

    def __call__(self, group: Sequence[Candidate]) -> Iterator[Result]:
        for candidate in group:
            self.seen.append(candidate)
            yield {"accuracy": accuracy(candidate)}, {"source": "formula"}


def task(folder: Path, evaluate: Evaluate, *, shared: bool, group: int = 2, **identity: Any) -> Study:
    url, grace_s = f"sqlite:///{folder / 'run.db'}", 60
    store = partial(
        EvaluationStore, url, "supernet-1", SPACE, [objective("accuracy")], decisions=False, grace_s=grace_s
    )
    return Study("supernet-1", store, evaluate, group, lambda: {**IDENTITY, **identity}, shared, grace_s)


def accuracies(results: Iterator[Result]) -> list[float]:
    return [values["accuracy"] for values, _ in results]


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.evaluation.sharing.POLL_S", 0.01)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("group", [1, 4])
def test_results_come_in_order_and_cost_once(tmp_path: Path, shared: bool, group: int) -> None:
    evaluated, wanted = Evaluated(), candidates(5)
    list(task(tmp_path, evaluated, shared=shared, group=group).results(wanted[1:3]))
    again = task(tmp_path, evaluated, shared=shared, group=group)
    assert accuracies(again.results(wanted)) == list(map(accuracy, wanted))
    assert sorted(c.id for c in evaluated.seen) == sorted(c.id for c in wanted)


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    evaluated, wanted = Evaluated(), candidates(4)
    first = task(tmp_path, evaluated, shared=True, group=1).results(wanted)
    assert [next(first), next(first)]  # and then it is killed
    assert accuracies(task(tmp_path, evaluated, shared=True).results(wanted)) == list(map(accuracy, wanted))
    assert len(evaluated.seen) == 4


def test_others_answers_come_in_the_leaders_order(tmp_path: Path) -> None:
    """The leader's own first evaluation ends when a worker has done all others."""
    wanted, theirs, all_done = candidates(5), Evaluated(), threading.Event()

    def slowly(group: Sequence[Candidate]) -> Iterator[Result]:
        assert all_done.wait(DEADLINE_S)
        return Evaluated()(group)

    leader = task(tmp_path, slowly, shared=True, group=1)
    worker = task(tmp_path, theirs, shared=True, group=1)

    def work() -> None:
        while len(theirs.seen) < len(wanted) - 1:
            work_off(worker)
        all_done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert accuracies(leader.results(wanted)) == list(map(accuracy, wanted))
    thread.join(DEADLINE_S)
    assert len({candidate.id for candidate in theirs.seen}) == len(theirs.seen) == len(wanted) - 1


def test_work_that_fails_is_left_to_others(tmp_path: Path) -> None:
    def fail(_: Sequence[Candidate]) -> Iterator[Result]:
        raise TrilobitError("no room on this machine")

    leader, broken, evaluated = (
        task(tmp_path, Evaluated(), shared=True),
        task(tmp_path, fail, shared=True),
        Evaluated(),
    )
    leader.queue.enqueue(candidates(2))
    with pytest.raises(TrilobitError, match="no room"):
        work_off(broken)
    assert work_off(task(tmp_path, evaluated, shared=True)) == 2
    assert evaluated.seen == candidates(2)


def test_one_storage_holds_one_run(tmp_path: Path) -> None:
    agree(task(tmp_path, Evaluated(), shared=True).store, IDENTITY)
    agree(task(tmp_path, Evaluated(), shared=True).store, IDENTITY)
    other = task(tmp_path, Evaluated(), shared=True, train={"epochs": 6}, seed=1)
    with pytest.raises(TrilobitError, match=r"train\.epochs 6 here, 8 there; seed 1 here, absent"):
        list(other.results(candidates(1)))


def test_lists_and_nothing_are_values() -> None:
    assert differences({"a": [1], "b": None}, {"a": [1], "b": None}) == []
    assert differences({"a": [1]}, {"a": [2]}) == ["a [1] here, [2] there"]
