"""A cluster within this process: who is asked, what comes back, and what ends a command in one line."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from nas.run import cluster as module
from nas.run.cluster import Cluster, RefusedError, _why_not, software
from nas.run.config_file import parse_config
from nas.run.reporting import PlainReporter

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


def local(workers: int, **options: Any) -> Any:
    settings = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    return distributed.LocalCluster(n_workers=workers, **settings, **options)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Two workers, which may not measure."""
    with local(2) as running:
        yield running.scheduler_address


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cluster(scheduler: str, said: list[str]) -> Iterator[Cluster]:
    with Cluster(scheduler, PlainReporter(said.append)) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.3)
    monkeypatch.setattr(module, "WORKERS_S", 0.2)
    monkeypatch.setattr(module, "LOOK_S", 0.05)


# -- what workers are asked; they import it from this module -------------------------------------------


def later(delay_s: float) -> float:
    time.sleep(delay_s)
    return -delay_s


def fail(item: int) -> int:
    if item == 2:
        raise TrilobitError("no room for two")
    return item


def break_down(item: int) -> int:
    raise ZeroDivisionError(item)


def name_of_worker(item: int) -> str:
    time.sleep(0.01)
    return str(distributed.get_worker().address)


def refuse_on_one(first: str) -> str:
    own = str(distributed.get_worker().address)
    if own == first:
        raise RefusedError("it does not see /runs/own")
    return own


def refuse(_: int) -> int:
    raise RefusedError("it does not see /runs/own")


# -- tests -----------------------------------------------------------------------------------------------


def test_answers_come_as_they_are_found_each_with_its_position(cluster: Cluster) -> None:
    delays_s = [0.3, 0.0]
    assert list(cluster.answers(later, delays_s)) == [(1, 0.0), (0, -0.3)]


def test_what_a_function_raises_ends_it(cluster: Cluster) -> None:
    with pytest.raises(TrilobitError, match="no room for two"):
        list(cluster.answers(fail, [1, 2, 3]))
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        list(cluster.answers(break_down, [1]))
    assert list(cluster.answers(fail, [])) == []


def test_who_works_is_said_at_the_start(cluster: Cluster, said: list[str]) -> None:
    cluster.require_workers()
    cluster.introduce()
    [line] = said
    assert cluster.address in line
    assert "2 workers on 1 machine, 0 with the resource `device`; dashboard " in line


def test_who_speaks_to_a_board_is_said_too(cluster: Cluster, said: list[str]) -> None:
    cluster.require_workers()
    cluster.introduce("ssh:pi@10.0.0.5")
    assert "2 workers on 1 machine, this process alone speaks to ssh:pi@10.0.0.5; dashboard " in said[0]


def test_a_worker_that_refuses_is_left_out_in_one_line(cluster: Cluster, said: list[str]) -> None:
    names = {name for _, name in cluster.answers(name_of_worker, range(8))}
    first, other = sorted(names)
    answers = list(cluster.answers(refuse_on_one, [first] * 6))
    assert sorted(answers) == [(i, other) for i in range(6)]
    assert said == [f"worker {first} is left out: it does not see /runs/own"]


def test_where_all_refuse_the_command_ends_with_their_reasons(cluster: Cluster) -> None:
    with pytest.raises(
        TrilobitError, match=r"no worker of \S+ can evaluate .*: \S+: it does not see /runs/own;"
    ):
        list(cluster.answers(refuse, [1]))


def test_measuring_needs_a_worker_that_says_it_may(cluster: Cluster) -> None:
    command = f'dask worker {cluster.address} --nworkers 1 --nthreads 1 --resources "device=1"'
    with pytest.raises(TrilobitError, match="resource `device`: start one") as caught:
        list(cluster.answers(later, [0.0], measuring=True))
    assert command in str(caught.value)
    assert list(cluster.answers(later, [0.0])) == [(0, 0.0)]


def test_only_those_measure_that_may_one_at_a_time() -> None:
    with local(2, resources={"device": 1}) as running, Cluster(running.scheduler_address) as cluster:
        names = dict(cluster.answers(name_of_worker, range(6), measuring=True))
        assert len(names) == 6
        assert set(names.values()) <= cluster._usable(True)


def test_nobody_there_is_one_line_with_the_command() -> None:
    said = pytest.raises(TrilobitError, match=r"no worker has joined .*: start some, `dask worker ")
    with local(0) as running, Cluster(running.scheduler_address) as cluster, said:
        cluster.require_workers()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://no.such.host.invalid:8786"])
def test_no_scheduler_is_one_line(address: str) -> None:
    with (
        Cluster(address) as cluster,
        pytest.raises(TrilobitError, match="no Dask scheduler answers at tcp://"),
    ):
        cluster.require_workers()


def test_a_scheduler_that_goes_away_is_one_line(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the connection then says of itself; tests/e2e/test_workers.py kills a real one."""
    answers = cluster.answers(later, [0.0, 0.5])
    assert next(answers) == (0, 0.0)
    monkeypatch.setattr(cluster._client, "status", "connecting")
    with pytest.raises(TrilobitError, match="is gone; what was evaluated is kept"):
        next(answers)
    monkeypatch.undo()


@pytest.mark.slow
def test_an_evaluation_that_takes_its_workers_with_it_is_given_up(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 10.0)
    monkeypatch.setattr(module, "WORKERS_S", 30.0)
    with Cluster("local:1", PlainReporter(said.append)) as cluster:
        with pytest.raises(TrilobitError, match="lost with several workers, one after the other"):
            list(cluster.answers(os._exit, [1]))
        assert list(cluster.answers(abs, [-1])) == [(0, 1)]  # which are started again


def test_another_version_is_refused_by_name() -> None:
    ours = software()
    assert _why_not(ours, dict(ours)) == ""
    torch = ours["torch"]
    assert _why_not(ours, {**ours, "torch": "2.0"}) == f"torch 2.0 there, {torch} here; install the same"
    missing = _why_not(ours, ModuleNotFoundError("No module named 'nas'"))
    assert "cannot load trilobit" in missing
    assert "No module named 'nas'" in missing


def test_tls_is_dasks_own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no certificate does not get in."""
    pytest.importorskip("cryptography")
    security = distributed.Security.temporary()
    (tmp_path / "ca.pem").write_text(security.tls_ca_file)
    (tmp_path / "own.pem").write_text(security.tls_client_cert + security.tls_client_key)
    tls = "distributed.comm.tls"
    config = {f"{tls}.ca-file": tmp_path / "ca.pem", f"{tls}.client.cert": tmp_path / "own.pem"}
    with local(1, protocol="tls://", security=security) as running:
        with (
            Cluster(running.scheduler_address) as stranger,
            pytest.raises(TrilobitError, match="no Dask scheduler"),
        ):
            stranger.require_workers()
        monkeypatch.setattr(module, "CONNECT_S", 30.0)
        known = {name: str(path) for name, path in config.items()}
        with dask.config.set(known), Cluster(running.scheduler_address) as cluster:
            assert cluster.address.startswith("tls://")
            assert list(cluster.answers(later, [0.0])) == [(0, 0.0)]


def test_local_workers_need_no_resource() -> None:
    assert Cluster("local:2").local
    assert not Cluster("tcp://127.0.0.1:8786").local


@pytest.mark.parametrize(
    "address", ["8786", "host:8786", "local:", "local:0", "local:two", "http://host", "tcp://", "local:5000"]
)
def test_what_is_no_cluster_is_refused(address: str) -> None:
    with pytest.raises(TrilobitError, match=r"cluster\.address|cluster '"):
        parse_config({"cluster": {"address": address}}, origin="test")


def test_a_missing_dask_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.cli.failures import in_one_line, is_expected

    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with Cluster("tcp://127.0.0.1:1") as cluster, pytest.raises(ModuleNotFoundError) as caught:
        cluster.require_workers()
    assert is_expected(caught.value)
    assert "pip install 'trilobit[cluster]'" in in_one_line(caught.value)


def test_old_folders_with_a_time_of_grace_are_read(tmp_path: Path) -> None:
    config = parse_config({"storage": {"url": "", "grace_s": 60}}, origin="test")
    assert config.storage.url == ""
