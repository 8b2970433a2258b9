"""Results come in the order in which they are asked for, whatever order they are found in, and cost once."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from nas.evaluation.identity import agree, differences
from nas.evaluation.store import EvaluationStore, Result
from nas.evaluation.study import Evaluate, Study
from nas.search.objectives import objective
from supernet.families.family import load_family
from supernet.space.space import Candidate

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
IDENTITY = {"space": "digits", "train": {"epochs": 8}}
CANDIDATES = [SPACE.candidate(genome) for genome in SPACE.sample(6, rng=np.random.default_rng(0))]


def accuracy(candidate: Candidate) -> float:
    return int(candidate.id, 16) / 16 ** len(candidate.id)


def result(candidate: Candidate) -> Result:
    return {"accuracy": accuracy(candidate)}, {"source": "formula"}


class Evaluated:
    """Evaluates by a formula, and remembers what; `permute` says in which order answers come."""

    def __init__(self, permute: Sequence[int] = range(len(CANDIDATES))) -> None:
        self.permute = permute
        self.seen: list[Candidate] = []

    def __call__(self, group: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        for candidate in sorted(group, key=lambda candidate: self.permute[CANDIDATES.index(candidate)]):
            self.seen.append(candidate)
            yield candidate, result(candidate)


class Remembered:
    """A store in memory."""

    def __init__(self) -> None:
        self.known: dict[Candidate, Result] = {}

    def get(self, candidate: Candidate) -> Result | None:
        return self.known.get(candidate)

    def add(self, candidate: Candidate, *result: object) -> None:
        assert candidate not in self.known
        self.known[candidate] = result  # type: ignore[assignment]


def stored(folder: Path) -> EvaluationStore:
    url = f"sqlite:///{folder / 'run.db'}"
    return EvaluationStore(url, "supernet-1", SPACE, [objective("accuracy")], decisions=False)


def study(folder: Path, evaluate: Evaluate, group: int | None = None) -> Study:
    return Study("supernet-1", partial(stored, folder), evaluate, group)


def study_in(store: Remembered, permute: Sequence[int], group: int | None) -> Study:
    return Study("any", lambda: store, Evaluated(permute), group)  # type: ignore[arg-type,return-value]


def accuracies(results: Iterator[Result]) -> list[float]:
    return [values["accuracy"] for values, _ in results]


@given(
    permute=st.permutations(range(len(CANDIDATES))),
    asked=st.lists(st.sampled_from(CANDIDATES), max_size=9),
    known=st.sets(st.sampled_from(CANDIDATES)),
    group=st.sampled_from([None, 1, 4]),
)
def test_the_order_of_results_does_not_depend_on_the_order_of_completion(
    permute: list[int], asked: list[Candidate], known: set[Candidate], group: int | None
) -> None:
    store, evaluated = Remembered(), Evaluated(permute)
    for candidate in known:
        store.add(candidate, *result(candidate))
    found = Study("any", lambda: store, evaluated, group).results(asked)  # type: ignore[arg-type,return-value]
    assert accuracies(found) == list(map(accuracy, asked))
    assert len(evaluated.seen) == len(set(evaluated.seen)) == len(set(asked) - known)
    assert set(store.known) == set(asked) | known


@given(
    permute=st.permutations(range(len(CANDIDATES))),
    asked=st.lists(st.sampled_from(CANDIDATES), max_size=9),
    known=st.sets(st.sampled_from(CANDIDATES)),
    group=st.sampled_from([None, 1, 4]),
)
def test_what_is_there_is_told_before_its_turn(
    permute: list[int], asked: list[Candidate], known: set[Candidate], group: int | None
) -> None:
    store, told = Remembered(), list[tuple[int, float]]()
    for candidate in known:
        store.add(candidate, *result(candidate))
    seen = study_in(store, permute, group).results(
        asked, lambda n, each: told.append((n, each[0]["accuracy"]))
    )
    assert accuracies(seen) == list(map(accuracy, asked))
    counts = [count for count, _ in told]
    assert counts == sorted(counts)
    assert counts[-1:] == ([len(asked)] if asked else [])
    assert {value for _, value in told} == set(map(accuracy, asked))


def test_the_last_to_come_holds_up_nothing_that_is_told() -> None:
    """The first of three is the last to come."""
    told: list[int] = []
    found = study_in(Remembered(), [2, 0, 1, 3, 4, 5], None).results(
        CANDIDATES[:3], lambda n, _: told.append(n)
    )
    assert next(found) == result(CANDIDATES[0])
    assert told == [1, 2, 3]


@pytest.mark.parametrize("group", [None, 1, 4])
def test_results_are_kept_and_cost_once(tmp_path: Path, group: int | None) -> None:
    evaluated = Evaluated([5, 3, 1, 0, 2, 4])
    list(study(tmp_path, evaluated, group).results(CANDIDATES[1:3]))
    again = study(tmp_path, evaluated, group)
    assert accuracies(again.results(CANDIDATES)) == list(map(accuracy, CANDIDATES))
    assert len(evaluated.seen) == len(CANDIDATES)


def test_what_was_found_before_its_turn_is_kept_where_the_rest_fails(tmp_path: Path) -> None:
    """The first of three is the last to come, and never does."""

    def lost(group: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        for candidate in group[1:]:
            yield candidate, result(candidate)
        raise TrilobitError("the scheduler is gone")

    with pytest.raises(TrilobitError, match="is gone"):
        list(study(tmp_path, lost).results(CANDIDATES[:3]))
    evaluated = Evaluated()
    list(study(tmp_path, evaluated).results(CANDIDATES[:3]))
    assert evaluated.seen == CANDIDATES[:1]


def test_whoever_stops_asking_ends_the_evaluating(tmp_path: Path) -> None:
    ended = []

    def endless(group: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        try:
            for candidate in group:
                yield candidate, result(candidate)
        finally:
            ended.append(True)

    results = study(tmp_path, endless).results(CANDIDATES)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert ended


def test_one_storage_holds_one_run(tmp_path: Path) -> None:
    agree(stored(tmp_path), IDENTITY)
    agree(stored(tmp_path), IDENTITY)
    with pytest.raises(TrilobitError, match=r"train\.epochs 6 here, 8 there; seed 1 here, absent"):
        agree(stored(tmp_path), {"space": "digits", "train": {"epochs": 6}, "seed": 1})


def test_a_store_is_refused_before_anything_is_evaluated_for_it(tmp_path: Path) -> None:
    def refuse(_: EvaluationStore) -> None:
        raise TrilobitError("another run")

    evaluated = Evaluated()
    list(study(tmp_path, evaluated).results(CANDIDATES[:1]))
    refused = Study("supernet-1", partial(stored, tmp_path), evaluated, None, refuse)
    list(refused.results(CANDIDATES[:1]))  # known: nothing to evaluate
    with pytest.raises(TrilobitError, match="another run"):
        list(refused.results(CANDIDATES))
    assert evaluated.seen == CANDIDATES[:1]


def test_lists_and_nothing_are_values() -> None:
    assert differences({"a": [1], "b": None}, {"a": [1], "b": None}) == []
    assert differences({"a": [1]}, {"a": [2]}) == ["a [1] here, [2] there"]
