"""A run on a cluster of real processes: workers and schedulers that are killed, a PostgreSQL server, and the
front of a run that was alone.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nas.run.storage import Storage, open_storage
from tests.waiting import DEADLINE_S, wait_until

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow
PASSWORD = "s3cret@{}"  # as awkward as people write them
IN_URL = "s3cret%40{}"
Process = subprocess.Popen[str]
QUIET = {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}


# -- a server ------------------------------------------------------------------------------------------


def server_program(name: str) -> str:
    """PostgreSQL keeps its server's programs out of the path on Debian."""
    candidates = [shutil.which(name), *sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))]
    known = [path for path in candidates if path]
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


# -- a cluster -------------------------------------------------------------------------------------------


class DaskProcesses:
    """A scheduler and its workers, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []
        self.address = ""

    def start(self, program: str, *arguments: str | Path, **environment: str) -> Process:
        line = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{program}",
            *map(str, arguments),
            "--no-dashboard",
        ]
        log = (self.folder / f"{program}{len(self.started)}.log").open("w")
        process = subprocess.Popen(
            line,
            env={**os.environ, **QUIET, **environment},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        log.close()
        self.started.append(process)
        return process

    def schedule(self) -> Process:
        """Start a scheduler, at the address of the last one where there was one."""
        port = self.address.rpartition(":")[2] or "0"
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        here = ("--host", "tcp://127.0.0.1", "--port", port, "--scheduler-file", file)
        process = self.start("scheduler", *here)
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        self.address = json.loads(file.read_text())["address"]
        return process

    def work(self, *arguments: str, **environment: str) -> Process:
        """Start a worker."""
        alone = ("--nthreads", "1", "--nworkers", "1", "--host", "127.0.0.1")
        return self.start("worker", self.address, *alone, *arguments, **environment)

    def stop(self) -> None:
        for process in self.started:
            kill(process)


def kill(process: Process) -> None:
    """Kill a process and its children, -9."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskProcesses]:
    processes = DaskProcesses(tmp_path)
    processes.schedule()
    try:
        yield processes
    finally:
        processes.stop()


# -- what the storage holds ----------------------------------------------------------------------------


def evaluated(storage: Storage, study: str) -> list[str]:
    """Ids of what is evaluated in all studies whose name begins so."""
    return [
        trial.user_attrs["id"]
        for frozen_study in storage.get_all_studies()
        if frozen_study.study_name.startswith(study)
        for trial in storage.get_all_trials(
            storage.get_study_id_from_name(frozen_study.study_name), deepcopy=False
        )
        if trial.state.name == "COMPLETE"
    ]


def evaluated_in(folder: Path, study: str) -> list[str]:
    path = folder / "run.db"
    return evaluated(open_storage(f"sqlite:///{path}"), study) if path.exists() else []


def copy_trained(finished_run: Path, folder: Path) -> Path:
    """A run whose supernet is trained, and of which nothing is evaluated."""
    gone = ("run.db", "front.json", "samples.json", "damage.json", "quality.json", "export", "report.html")
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns(*gone))
    state = json.loads((folder / "state.json").read_text())
    state["stages"] = {name: done for name, done in state["stages"].items() if name in ("profile", "train")}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def front(folder: Path) -> bytes:
    return (folder / "front.json").read_bytes()


def require_same(folder: Path, finished_run: Path) -> None:
    """The front is byte for byte that of a run alone, and nothing was evaluated twice."""
    assert front(folder) == front(finished_run)
    assert (folder / "damage.json").read_bytes() == (finished_run / "damage.json").read_bytes()
    for study in ("supernet", "measured"):
        ids = evaluated_in(folder, study)
        assert len(ids) == len(set(ids))
        assert set(ids) == set(evaluated_in(finished_run, study))


# -- tests -----------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_costs_nothing(start, dask, finished_run: Path, tmp_path: Path) -> None:
    """Killed at work, with the process that would start it again; another one has joined meanwhile."""
    folder, first = copy_trained(finished_run, tmp_path / "run"), dask.work()
    process = start("run", "-o", folder, "--cluster", dask.address)
    wait_until(lambda: len(evaluated_in(folder, "supernet")) >= 2)
    dask.work()
    kill(first)
    printed, complaint = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, complaint) == (0, "")
    assert f"cluster {dask.address}: 1 worker on 1 machine" in printed
    require_same(folder, finished_run)


def test_a_scheduler_that_is_killed_ends_the_command_which_then_goes_on(
    start, nas, dask, finished_run: Path, tmp_path: Path
) -> None:
    folder, scheduler = copy_trained(finished_run, tmp_path / "run"), dask.started[0]
    dask.work()
    process = start("run", "-o", folder, "--cluster", dask.address)
    wait_until(lambda: len(evaluated_in(folder, "supernet")) >= 2)
    kill(scheduler)
    _, complaint = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert complaint.count("\n") == 1
    assert f"the scheduler at {dask.address} is gone; what was evaluated is kept" in complaint
    before = evaluated_in(folder, "supernet")
    assert len(before) >= 2
    dask.schedule()
    dask.work()
    nas("run", "-o", folder, "--cluster", dask.address)
    assert evaluated_in(folder, "supernet")[: len(before)] == before
    require_same(folder, finished_run)


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_leader_that_is_killed_goes_on_with_what_came(
    start, nas, finished_run: Path, tmp_path: Path
) -> None:
    folder = copy_trained(finished_run, tmp_path / "run")
    first = start("run", "-o", folder, "--cluster", "local:2", start_new_session=True)
    wait_until(lambda: len(evaluated_in(folder, "supernet")) >= 3)
    workers = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE_S)
    assert not alive  # nothing is left behind
    before = evaluated_in(folder, "supernet")
    nas("run", "-o", folder)  # the cluster is in run.toml
    assert evaluated_in(folder, "supernet")[: len(before)] == before
    require_same(folder, finished_run)


def test_results_land_in_postgresql(nas, postgresql: str, finished_run: Path, tmp_path: Path) -> None:
    folder = copy_trained(finished_run, tmp_path / "run")
    printed = nas("run", "-o", folder, "--cluster", "local:2", "--storage", postgresql)
    assert front(folder) == front(finished_run)
    storage = open_storage(postgresql)
    for study in ("supernet", "measured"):
        assert sorted(evaluated(storage, study)) == sorted(evaluated_in(finished_run, study))
    storage.engine.dispose()
    for path in folder.rglob("*"):
        assert path.is_dir() or PASSWORD[:6].encode() not in path.read_bytes()
    assert PASSWORD[:6] not in printed


def test_workers_that_cannot_are_left_out_in_one_line_each(
    start, nas, dask, finished_run: Path, tmp_path: Path
) -> None:
    """One has another version of torch."""
    folder = copy_trained(finished_run, tmp_path / "run")
    older = tmp_path / "older"
    (older / "torch-2.0.0.dist-info").mkdir(parents=True)
    (older / "torch-2.0.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n"
    )
    paths = (str(older), os.environ.get("PYTHONPATH", ""))
    dask.work("--name", "older", PYTHONPATH=os.pathsep.join(filter(None, paths)))
    _, complaint = start("sample", "-o", folder, "--cluster", dask.address).communicate(timeout=DEADLINE_S)
    assert "torch 2.0.0 there, " in complaint
    assert complaint.count("\n") == 1
    dask.work()
    printed = nas("sample", "-o", folder, "--cluster", dask.address)
    assert printed.count("is left out: torch 2.0.0 there, ") == 1
    ids = evaluated_in(folder, "supernet")
    assert len(ids) == len(set(ids)) == len(evaluated_in(finished_run, "supernet"))
