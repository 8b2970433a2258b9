"""Shared evaluations: claimed by one, kept alive, given back; with several connections to one file."""

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from hw_profiles.errors import TrilobitError
from nas.evaluation.queue import LOST_AT_MOST, Claim, EvaluationQueue
from nas.evaluation.store import EvaluationStore
from nas.search.objectives import objective
from supernet.families.family import load_family
from supernet.space.space import Candidate

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
DEADLINE_S = 60
VALUES, SOURCE = {"accuracy": 0.5}, {"source": "supernet"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


class Worker:
    """A process's view of the storage."""

    def __init__(self, url: str, grace_s: int = 60) -> None:
        options = {"decisions": False, "grace_s": grace_s}
        self.store = EvaluationStore(url, "supernet", SPACE, [objective("accuracy")], **options)
        self.queue = EvaluationQueue(self.store, grace_s=grace_s)

    def sql(self, statement: str) -> list[tuple]:
        with self.store.storage.engine.begin() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []


def candidates(n: int) -> list[Candidate]:
    return [SPACE.candidate(genome) for genome in SPACE.sample(n, rng=np.random.default_rng(0))]


def waiting(url: str, n: int) -> Worker:
    worker = Worker(url)
    worker.queue.enqueue(candidates(n))
    return worker


def age_heartbeats(worker: Worker) -> None:
    worker.sql("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")


def taken(claims: list[Claim]) -> list[Candidate]:
    return [claim.candidate for claim in claims]


def test_what_waits_is_claimed_in_order_and_whole(url: str) -> None:
    waiting(url, 5)
    worker = Worker(url)
    assert taken(worker.queue.claim(2)) == candidates(5)[:2]
    assert taken(worker.queue.claim(9)) == candidates(5)[2:]
    assert worker.queue.claim(1) == []


def test_each_is_claimed_once_whoever_queues_it(url: str) -> None:
    """Four at the same time: all queue everything, and claim until everything is finished."""
    claimed, lock, barrier, wanted = Counter[str](), threading.Lock(), threading.Barrier(4), candidates(8)
    workers = [Worker(url) for _ in range(4)]

    def work(worker: Worker) -> None:
        barrier.wait()
        worker.queue.enqueue(wanted)
        while len(worker.store) < len(wanted):
            for claim in worker.queue.claim(1):
                with lock:
                    claimed[claim.candidate.id] += 1
                worker.queue.finish(claim, VALUES, SOURCE)

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=DEADLINE_S)
    assert claimed == Counter(candidate.id for candidate in wanted)


def test_a_finished_one_is_known_to_all(url: str) -> None:
    leader, worker = waiting(url, 2), Worker(url)
    [claim] = worker.queue.claim(1)
    worker.queue.finish(claim, VALUES, {"error": None, **SOURCE})
    leader.queue.read()
    for seen in (leader, worker, Worker(url)):
        found = seen.store.get(claim.candidate)
        assert found is not None
        assert found[0] == VALUES
        assert found[1]["error"] is None
    assert leader.store.get(candidates(2)[1]) is None


def test_what_is_known_or_somebodys_is_not_queued_again(url: str) -> None:
    leader, wanted = waiting(url, 3), candidates(4)
    first, _ = leader.queue.claim(2)
    leader.queue.finish(first, VALUES, SOURCE)
    other = Worker(url)
    other.queue.read()
    other.queue.enqueue(wanted)
    assert taken(other.queue.claim(9) + other.queue.claim(9)) == wanted[2:]


def test_interrupted_work_waits_again(url: str) -> None:
    worker = waiting(url, 3)
    claims = worker.queue.claim(2)

    def work() -> None:
        with worker.queue.held(claims):
            worker.queue.finish(claims[0], VALUES, SOURCE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert taken(Worker(url).queue.claim(9)) == candidates(3)[1:]


def test_what_a_dead_worker_had_is_done_again_and_its_late_answer_ignored(url: str) -> None:
    leader, dead = waiting(url, 1), Worker(url)
    [lost] = dead.queue.claim(1)
    leader.queue.give_back()
    assert leader.queue.claim(1) == []
    age_heartbeats(leader)
    leader.queue.give_back()
    leader.queue.read()
    leader.queue.enqueue(candidates(1))
    [again] = Worker(url).queue.claim(1)
    assert again.candidate == lost.candidate
    dead.queue.finish(lost, {"accuracy": 0.1}, SOURCE)
    assert dead.store.get(lost.candidate) is None
    Worker(url).queue.finish(again, VALUES, SOURCE)
    dead.queue.read()
    found = dead.store.get(lost.candidate)
    assert found is not None
    assert found[0] == VALUES


def test_one_that_dies_right_after_its_claim_is_found_lost(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, dead = waiting(url, 1), Worker(url)

    def die(*_: object) -> None:
        raise SystemExit  # where nothing else is done any more

    monkeypatch.setattr(dead.store.storage, "set_trial_user_attr", die)
    with pytest.raises(SystemExit):
        dead.queue.claim(1)
    age_heartbeats(leader)
    leader.queue.give_back()
    leader.queue.read()
    leader.queue.enqueue(candidates(1))
    assert taken(leader.queue.claim(1)) == candidates(1)


def test_whoever_works_shows_that_it_lives(url: str) -> None:
    worker = Worker(url, grace_s=1)
    worker.queue.enqueue(candidates(1))
    claims = worker.queue.claim(1)
    with worker.queue.held(claims):
        age_heartbeats(worker)
        deadline = time.monotonic() + DEADLINE_S
        fresh = "SELECT count(*) FROM trial_heartbeats WHERE heartbeat > datetime('now', '-30 minutes')"
        while worker.sql(fresh) == [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_one_that_kills_all_its_workers_ends_the_run(url: str) -> None:
    leader = Worker(url)
    for _ in range(LOST_AT_MOST):
        leader.queue.enqueue(candidates(1))
        assert len(leader.queue.claim(1)) == 1
        age_heartbeats(leader)
        leader.queue.give_back()
        leader.queue.read()
    with pytest.raises(TrilobitError, match=f"lost with {LOST_AT_MOST} workers"):
        leader.queue.enqueue(candidates(1))


def test_the_workers_are_counted(url: str) -> None:
    leader = waiting(url, 4)
    finished, _ = leader.queue.claim(2)
    leader.queue.finish(finished, VALUES, SOURCE)
    leader.queue.read()
    status = leader.queue.status()
    assert (status.done, status.claimed, status.waiting) == (1, 1, 2)
    assert status.workers == (leader.queue.name,)
    assert str(status) == "1 claimed by 1 workers, 2 waiting"
