"""One kind of evaluation, done by this process alone or by many on the same storage."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from hw_profiles.errors import TrilobitError
from nas.evaluation.queue import EvaluationQueue
from nas.evaluation.store import EvaluationStore, Result
from nas.run.storage import failures_of, hidden
from supernet.space.space import Candidate

WINDOW = 128  # evaluations that wait at a time: enough for all workers, and quick to read
POLL_S = 0.5  # between two looks at what others do
IDENTITY = "run"  # the study's attribute that says of which run it is


@dataclass(frozen=True)
class Study:
    """One kind of evaluation.

    Attributes:
        name: what its trials are called in the storage.
        open_store: where its results are.
        evaluate: candidates -> their results, in order and one after the other.
        group: how many candidates one process evaluates at a time.
        identity: everything the results depend on, to be compared with other machines.
        shared: whether others work on it too.
        grace_s: after so many seconds without a sign of life one of them counts as lost.
    """

    name: str
    open_store: Callable[[], EvaluationStore]
    evaluate: Callable[[Sequence[Candidate]], Iterator[Result]]
    group: int
    identity: Callable[[], Mapping[str, Any]]
    shared: bool
    grace_s: int

    @cached_property
    def store(self) -> EvaluationStore:
        """Of what is finished."""
        return self.open_store()

    @cached_property
    def queue(self) -> EvaluationQueue:
        """Of what is not."""
        return EvaluationQueue(self.store, grace_s=self.grace_s)

    def results(self, candidates: Sequence[Candidate]) -> Iterator[Result]:
        """Yield the candidates' results in order; known ones cost nothing.

        Raises:
            TrilobitError: the storage holds another run, or fails.
        """
        return evaluate_together(self, candidates) if self.shared else evaluate_alone(self, candidates)

    def status(self) -> str:
        """Return who is at work, for people; empty where nothing is shared."""
        return f", {self.queue.status()}" if self.shared else ""


def evaluate_alone(study: Study, candidates: Sequence[Candidate]) -> Iterator[Result]:
    """Group after group, here."""
    for start in range(0, len(candidates), study.group):
        group = candidates[start : start + study.group]
        missing = [candidate for candidate in group if study.store.get(candidate) is None]
        for candidate, result in zip(missing, study.evaluate(missing) if missing else (), strict=True):
            study.store.add(candidate, *result)
        for candidate in group:
            yield _known(study, candidate)


def evaluate_together(study: Study, candidates: Sequence[Candidate]) -> Iterator[Result]:
    """Yield results with everybody who works on the same storage, in the order of the candidates, whoever
    evaluates them and when.

    Raises:
        TrilobitError: the storage holds another run, or an evaluation was lost with its worker again and
            again.
    """
    agree(study.store, study.identity())
    pending = deque(candidates)
    looked, evaluated = -float("inf"), 0
    while pending:
        if not evaluated or time.monotonic() - looked > POLL_S:
            study.queue.give_back()
            study.queue.read()
            study.queue.enqueue(islice(pending, WINDOW))
            looked = time.monotonic()
        evaluated = work_off(study)
        while pending and study.store.get(pending[0]) is not None:
            yield _known(study, pending.popleft())
        if not evaluated:
            time.sleep(POLL_S)


def work_off(study: Study) -> int:
    """Evaluate one group of what waits; gives how many those were."""
    claims = study.queue.claim(study.group)
    if claims:
        with study.queue.held(claims):
            results = study.evaluate([claim.candidate for claim in claims])
            for claim, (values, attributes) in zip(claims, results, strict=True):
                study.queue.finish(claim, values, attributes)
    return len(claims)


def _known(study: Study, candidate: Candidate) -> Result:
    result = study.store.get(candidate)
    assert result is not None
    return result


# -- of which run ------------------------------------------------------------------------------------------


def agree(store: EvaluationStore, identity: Mapping[str, Any]) -> None:
    """Say of which run the store is, or see that it is of this one.

    Raises:
        TrilobitError: it is of another run; what differs is named.
    """
    with failures_of(store.url):
        stored = store.study.user_attrs.get(IDENTITY)
        if stored is None:
            store.study.set_user_attr(IDENTITY, identity)
            stored = store.study.user_attrs[IDENTITY]
    check_same(store.url, identity, stored)


def check_same(url: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """See that two identities are the same.

    Raises:
        TrilobitError: they are not; what differs is named.
    """
    differing = differences(ours, theirs)
    if differing:
        raise TrilobitError(
            f"this run is not the one in {hidden(url)}: {'; '.join(differing)}; copy the run folder of the "
            "machine that leads the run, or share it"
        )


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return what differs, by dotted name.

    >>> differences({"seed": 0, "train": {"epochs": 8}}, {"seed": 0, "train": {"epochs": 6}})
    ['train.epochs 8 here, 6 there']
    """
    here, there = _flat(ours), _flat(theirs)
    names = dict.fromkeys((*here, *there))
    absent = "absent"
    return [
        f"{name} {here.get(name, absent)} here, {there.get(name, absent)} there"
        for name in names
        if here.get(name, absent) != there.get(name, absent)
    ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
