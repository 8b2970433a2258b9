"""Several processes on one run: a real PostgreSQL server, workers that are killed, and the front of one that
worked alone.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.evaluation.queue import EvaluationQueue
from nas.evaluation.sharing import agree
from nas.evaluation.store import EvaluationStore
from nas.run.run import find_run
from nas.run.storage import Storage, open_storage
from nas.search.objectives import objective
from supernet.families.family import load_family

DEADLINE_S = 600  # of several processes on a busy machine
POLL_S = 0.05
GRACE_S = 20  # two were not enough for a living worker among twenty busy processes
PASSWORD = "s3cret@{}"  # as awkward as people write them
IN_URL = "s3cret%40{}"
Row = tuple[Any, ...]


# -- a server ------------------------------------------------------------------------------------------


def server_program(name: str) -> str:
    """PostgreSQL keeps its server's programs out of the path on Debian."""
    found = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))]
    known = [path for path in found if path]
    if not known:
        pytest.skip(f"no {name}: install the package postgresql")
    return known[-1]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of its own, started by somebody who is not root, with a password; gives its URL."""
    pytest.importorskip("psycopg")
    initdb, postgres = server_program("initdb"), server_program("postgres")
    # pytest's own folders are closed to other users, and a socket's path must be short
    folder = Path(tempfile.mkdtemp(prefix="trilobit-"))
    user: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        user |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    make = [initdb, "-D", folder / "data", "-U", "trilobit", "-A", "scram-sha-256"]
    make += [f"--pwfile={folder / 'password'}", "-N", "-E", "UTF8", "--no-locale"]
    subprocess.run(make, check=True, capture_output=True, **user)
    quick = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    log = (folder / "log").open("w")
    process = subprocess.Popen([postgres, "-D", folder / "data", *quick], stderr=log, stdout=log, **user)
    try:
        wait_until(lambda: (folder / ".s.PGSQL.5432").exists())
        wait_until(lambda: "ready to accept connections" in (folder / "log").read_text())
        yield f"postgresql+psycopg://trilobit:{IN_URL}@/{{database}}?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)  # "fast shutdown"
        process.wait(timeout=DEADLINE_S)
        log.close()
        shutil.rmtree(folder)


@pytest.fixture
def postgresql(server: str, request: pytest.FixtureRequest) -> str:
    """An empty database; gives its URL."""
    import psycopg

    name = request.node.originalname.lower()[:60]
    host = server.rpartition("=")[2]
    connection = psycopg.connect(
        host=host, user="trilobit", password=PASSWORD, dbname="postgres", autocommit=True
    )
    with contextlib.closing(connection):
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.replace("{database}", name)


def wait_until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


# -- what the storage holds ----------------------------------------------------------------------------


class Watched:
    """A storage, looked at from outside."""

    def __init__(self, url: str) -> None:
        self.storage: Storage = open_storage(url, grace_s=GRACE_S)

    def trials(self, study: str, *states: str) -> list[Row]:
        """(candidate's id, state, worker) of the trials of all studies whose name begins so, in order."""
        return [
            (trial.user_attrs["id"], trial.state.name, trial.user_attrs.get("worker"))
            for found in self.storage.get_all_studies()
            if found.study_name.startswith(study)
            for trial in self.storage.get_all_trials(
                self.storage.get_study_id_from_name(found.study_name), deepcopy=False
            )
            if not states or trial.state.name in states
        ]

    def claims_of(self, pid: int) -> list[Row]:
        return [row for row in self.trials("supernet", "RUNNING") if str(row[2]).endswith(f":{pid}")]


def caught_working(watched: Watched, process: "subprocess.Popen[str]") -> list[Row]:
    """Stop the process while it has claimed something; gives what."""
    while True:
        wait_until(lambda: watched.claims_of(process.pid))
        process.send_signal(signal.SIGSTOP)
        if claims := watched.claims_of(process.pid):
            return claims
        process.send_signal(signal.SIGCONT)  # it was just done with that


def copy_trained(finished_run: Path, folder: Path) -> Path:
    """What a machine needs of a run: its configuration, its supernet, and that it is trained."""
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns("run.db", "front.json", "export"))
    state = json.loads((folder / "state.json").read_text())
    state["stages"] = {name: found for name, found in state["stages"].items() if name in ("profile", "train")}
    (folder / "state.json").write_text(json.dumps(state))
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text.replace("grace_s = 60", f"grace_s = {GRACE_S}"))
    return folder


@pytest.fixture
def workers(start, finished_run: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts workers, each with its own copy of the run."""
    started: list[subprocess.Popen[str]] = []

    def begin(url: str, n: int) -> "list[subprocess.Popen[str]]":
        for i in range(n):
            folder = copy_trained(finished_run, tmp_path / f"worker{i}")
            started.append(start("worker", "-o", folder, "--storage", url, "--idle", "10m"))
        return started

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def front(folder: Path) -> bytes:
    return (folder / "front.json").read_bytes()


# -- tests -----------------------------------------------------------------------------------------------


def queue_samples(leader: Path, finished_run: Path, url: str, *, more: int) -> int:
    """What the finished run sampled waits, as if its leader had begun, and so many networks besides; gives
    how many it sampled.
    """
    run = find_run(leader)
    run = replace(run, config=replace(run.config, storage=replace(run.config.storage, url=url)))
    space = run.family.space()
    study = SupernetEvaluator(NetworkBuilder(find_run(finished_run))).samples.study
    genomes = [np.array(trial.user_attrs["genes"], np.int16) for trial in study.get_trials(deepcopy=False)]
    others = space.sample(more, rng=np.random.default_rng(1))
    sampling = SupernetEvaluator(NetworkBuilder(run)).sampling
    agree(sampling.store, sampling.identity())
    sampling.queue.enqueue(map(space.candidate, (*genomes, *others)))
    return len(genomes)


@pytest.mark.slow
def test_three_workers_one_killed_give_the_front_of_one(
    start, workers, finished_run: Path, postgresql: str, tmp_path: Path
) -> None:
    leader, watched = copy_trained(finished_run, tmp_path / "leader"), Watched(postgresql)
    wanted = queue_samples(leader, finished_run, postgresql, more=40)
    crew = workers(postgresql, 3)
    process = start("run", "-o", leader, "--storage", postgresql)
    [lost] = caught_working(watched, crew[0])
    crew[0].kill()
    printed, complaint = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, complaint) == (0, "")
    assert front(leader) == front(finished_run)

    samples = watched.trials("supernet")
    ends = Counter(row[1] for row in samples if row[0] == lost[0])
    assert ends == {"FAIL": 1, "COMPLETE": 1}
    assert [row for row in samples if row[1] == "FAIL"] == [(lost[0], "FAIL", lost[2])]
    finished = [row for row in samples if row[1] == "COMPLETE"]
    assert wanted <= len(finished) == len({row[0] for row in finished})
    assert len({row[2] for row in finished} - {lost[2]}) >= 2  # others have worked
    measured = watched.trials("measured")
    assert {row[1] for row in measured} == {"COMPLETE"}
    assert len({row[0] for row in measured}) == len(measured)
    for path in leader.rglob("*"):
        assert path.is_dir() or PASSWORD[:6].encode() not in path.read_bytes()
    assert PASSWORD[:6] not in printed


@pytest.mark.slow
@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_leader_that_is_killed_goes_on_with_what_its_workers_did(
    start, nas, workers, finished_run: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    leader = copy_trained(finished_run, tmp_path / "leader")
    nas("worker", "-o", leader, "--storage", url, "--status")  # makes the file
    watched = Watched(url)
    crew = workers(url, 2)
    first = start("run", "-o", leader, "--storage", url)
    wait_until(lambda: len(watched.trials("supernet", "COMPLETE")) >= 3)
    first.kill()
    first.communicate()
    nas("run", "-o", leader)  # the storage is in run.toml: no password was in its URL
    assert front(leader) == front(finished_run)
    for study in ("supernet", "measured"):
        finished = watched.trials(study, "COMPLETE")
        assert len({row[0] for row in finished}) == len(finished) > 3
    crew[0].send_signal(signal.SIGINT)
    _, complaint = crew[0].communicate(timeout=DEADLINE_S)
    assert (crew[0].returncode, complaint[:16]) == (130, "nas: interrupted")


@pytest.mark.slow
def test_a_server_gives_each_evaluation_to_one(postgresql: str) -> None:
    """Eight connections make the tables, queue everything and claim, all at the same time."""
    space = load_family("digits-mbconv", in_channels=1, classes=10).space()
    wanted = [space.candidate(genome) for genome in space.sample(40, rng=np.random.default_rng(0))]
    claimed, lock, barrier = Counter[str](), threading.Lock(), threading.Barrier(8)
    failed: list[BaseException] = []

    def work() -> None:
        barrier.wait()
        store = EvaluationStore(postgresql, "supernet", space, [objective("accuracy")], decisions=False)
        queue = EvaluationQueue(store, grace_s=60)
        queue.enqueue(wanted)
        while len(store) < len(wanted):
            for claim in queue.claim(1):
                with lock:
                    claimed[claim.candidate.id] += 1
                queue.finish(claim, {"accuracy": 1 / 3}, {"source": "formula"})

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=DEADLINE_S)
    assert not failed
    assert claimed == Counter(candidate.id for candidate in wanted)
