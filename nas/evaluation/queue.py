"""Evaluations that several processes share: each waiting one is claimed by exactly one of them, and those of
a process that died are queued again.
"""

import os
import socket
import threading
import warnings
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hw_profiles.errors import TrilobitError
from nas.evaluation.store import EvaluationStore
from nas.run.storage import failures_of
from supernet.space.space import Candidate

BEATS = 4  # signs of life within the time after which a worker counts as lost
LOST_AT_MOST = 5  # workers that one evaluation may take with it


@dataclass(frozen=True)
class Claim:
    """An evaluation that is this process's to do."""

    candidate: Candidate
    trial_id: int


@dataclass(frozen=True)
class WorkerStatus:
    """Who does what, when it was last read.

    Attributes:
        done, waiting, claimed: evaluations.
        workers: names of those that have claimed some.
    """

    done: int
    waiting: int
    claimed: int
    workers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.claimed} claimed by {len(self.workers)} workers, {self.waiting} waiting"


def count_workers(trials: Collection[FrozenTrial]) -> WorkerStatus:
    """Count one study's trials."""
    counts = Counter(trial.state for trial in trials)
    claimed_by = {
        str(trial.user_attrs["worker"])
        for trial in trials
        if trial.state == TrialState.RUNNING and "worker" in trial.user_attrs
    }
    done, waiting, claimed = (
        counts[state] for state in (TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING)
    )
    return WorkerStatus(done, waiting, claimed, tuple(sorted(claimed_by)))


class EvaluationQueue:
    """The unfinished trials of a study.

    A candidate waits as a trial in Optuna's state WAITING, and whoever sets it to RUNNING has claimed it;
    the storage compares and sets in one transaction. Of several trials of one candidate only the first that
    has not failed can be claimed, so whoever queues it and how often, one process at a time evaluates it.
    A claim is kept by a heartbeat that starts before it: killed at any point, its worker is found lost.

    Args:
        store: of the finished ones.
        grace_s: the store's.
    """

    def __init__(self, store: EvaluationStore, *, grace_s: int) -> None:
        self._store = store
        self._beat_s = grace_s / BEATS
        self._study_id = store.storage.get_study_id_from_name(store.study.study_name)
        self._first: dict[str, FrozenTrial] = {}  # by candidate, of those that have not failed
        self._waiting: deque[FrozenTrial] = deque()
        self._queued: Counter[str] = Counter()
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def read(self) -> None:
        """See what others did."""
        self._first = {}
        for trial in self._store.trials():
            if trial.state != TrialState.FAIL and "id" in trial.user_attrs:
                self._first.setdefault(trial.user_attrs["id"], trial)
        self._waiting = deque(t for t in self._first.values() if t.state == TrialState.WAITING)

    def status(self) -> WorkerStatus:
        """Return who does what, as of the last `read`."""
        return count_workers(self._first.values())

    def enqueue(self, candidates: Iterable[Candidate]) -> None:
        """Let those wait that are neither finished nor somebody's nor waiting already, as of the last `read`.

        Raises:
            TrilobitError: one was lost with its worker again and again.
        """
        for candidate in candidates:
            if candidate.id in self._first or self._store.get(candidate) is not None:
                continue
            self._queued[candidate.id] += 1
            if self._queued[candidate.id] > LOST_AT_MOST:
                raise TrilobitError(
                    f"candidate {candidate.id} was lost with {LOST_AT_MOST} workers, one after the other; "
                    "see why they died (memory?); the same command continues where this one stopped"
                )
            trial = self._store.trial(candidate, None, {})
            with failures_of(self._store.url):
                self._store.study.add_trial(trial)
            self._first[candidate.id] = trial

    def give_back(self) -> None:
        """Release what was claimed by workers that gave no sign of life for too long, to be queued again."""
        with warnings.catch_warnings(), failures_of(self._store.url):
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self._store.study)

    def claim(self, most: int) -> list[Claim]:
        """Take up to so many that waited at the last `read`; it is read again once all of those are
        taken. None where others were faster with everything.
        """
        claims: list[Claim] = []
        if not self._waiting:
            self.read()
        while self._waiting and len(claims) < most:
            trial = self._waiting.popleft()
            with failures_of(self._store.url):
                trial_id = self._store.storage.get_trial_id_from_study_id_trial_number(
                    self._study_id, trial.number
                )
                if self._claimed(trial_id):
                    genes = np.array(trial.user_attrs["genes"], np.int16)
                    claims.append(Claim(self._store.space.candidate(genes), trial_id))
        return claims

    def _claimed(self, trial_id: int) -> bool:
        storage = self._store.storage
        storage.record_heartbeat(trial_id)  # first: without one a trial never counts as lost
        try:
            if not storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                return False
            storage.set_trial_user_attr(trial_id, "worker", self.name)
        except UpdateFinishedTrialError:
            return False
        return True

    @contextmanager
    def held(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Show that their worker lives; when it fails or is interrupted, what is unfinished waits again."""
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=(claims, done), daemon=True)
        beating.start()
        try:
            yield
        except BaseException:
            done.set()
            beating.join()
            self._release(claims)
            raise
        finally:
            done.set()
            beating.join()

    def _beat(self, claims: Sequence[Claim], done: threading.Event) -> None:
        storage = self._store.storage
        while not done.wait(self._beat_s):
            for claim in claims:
                with suppress(StorageInternalError, SQLAlchemyError):  # the next beat may get through
                    storage.record_heartbeat(claim.trial_id)
        storage.remove_session()

    def _release(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            with suppress(UpdateFinishedTrialError, StorageInternalError, SQLAlchemyError):
                self._store.storage.set_trial_state_values(claim.trial_id, TrialState.WAITING)

    def finish(self, claim: Claim, values: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """Keep one evaluation; committed when this returns. Nothing is kept of a claim that was given to
        others meanwhile: their values count.
        """
        storage = self._store.storage
        try:
            with failures_of(self._store.url):
                for name, value in attributes.items():
                    storage.set_trial_user_attr(claim.trial_id, name, value)
                storage.set_trial_state_values(
                    claim.trial_id, TrialState.COMPLETE, self._store.ordered(values)
                )
        except UpdateFinishedTrialError:
            return
        self._store.remember(claim.candidate.id, values, attributes)
