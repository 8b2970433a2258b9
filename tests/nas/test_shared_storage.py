"""Storages and clusters on the command line: what is refused, and what is never written down."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from nas.cli.main import main
from nas.run.config import RunConfig
from nas.run.config_file import parse_config, read_config
from nas.run.default_formats import formats_of_layers
from nas.run.documents import Environment
from nas.run.run import Run, open_run
from supernet.families.family import load_family

Nas = Callable[..., tuple[str, str]]
SERVER = "postgresql+psycopg://me:s3cret@127.0.0.1:1/trilobit"  # nothing listens there


@pytest.fixture
def config(profile_file: Path) -> RunConfig:
    return parse_config({"device": {"name": f"recorded:{profile_file}"}}, origin="test")


@pytest.fixture
def nas(capsys: pytest.CaptureFixture[str]) -> Nas:
    """Runs a command; gives what it printed, on both streams."""

    def command(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
        assert main([*map(str, arguments)]) == code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return command


def trained(folder: Path, config: RunConfig) -> Run:
    """A run whose supernet counts as trained; its weights are any bytes."""
    run = open_run(folder, config)
    run.checkpoint_path.parent.mkdir()
    run.checkpoint_path.write_bytes(b"weights")
    run.mark_done("train", 1.0)
    return run


@pytest.mark.parametrize("sums", ["exact", "saturating"])
def test_weights_are_rounded_for_the_runs_device_not_for_the_workers(
    config: RunConfig, tmp_path: Path, sums: str
) -> None:
    formats = ("fp32", "int8", "int8-exact")
    leader = Environment({}, 0, integer_sums=sums, formats=formats)  # type: ignore[arg-type]
    elsewhere = replace(config, device=replace(config.device, name="recorded:nowhere.json"))
    run = Run(tmp_path, elsewhere, leader=leader)
    assert run.sums.reduced == (sums == "saturating")
    own = load_family("digits-mbconv", in_channels=1, classes=10)
    expected = formats_of_layers(own.space()) if sums == "exact" else formats
    assert formats_of_layers(run.family.space()) == expected


def test_a_folder_says_what_its_device_computes(config: RunConfig, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", config)
    environment = read_document(run.folder / "env.json", Environment)
    assert environment.integer_sums == str(run.sums)
    assert "int8" in environment.formats


def test_passwords_stay_out_of_files_and_messages(nas: Nas, config: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    shared = replace(config, storage=replace(config.storage, url=SERVER))
    assert "s3cret" not in repr(shared)
    run = trained(tmp_path / "run", shared)
    written = read_config(run.folder / "run.toml").storage
    assert written.url == "postgresql+psycopg://me@127.0.0.1:1/trilobit"
    for command in ("sample", "run"):
        printed, complaint = nas(command, "-o", run.folder, "--storage", SERVER, code=2)
        assert "me@127.0.0.1:1/trilobit: " in complaint
        assert "s3cret" not in printed + complaint
    for path in run.folder.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()


def test_a_storage_that_is_no_url_is_not_written_down(nas: Nas, tmp_path: Path) -> None:
    _, complaint = nas("profile", "-o", tmp_path / "run", "--storage", "s3cret", code=2)
    assert "not a URL" in complaint
    assert not list(tmp_path.rglob("run.toml"))


def test_a_cluster_that_does_not_answer_is_refused_at_once(
    nas: Nas, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only by stages that it would help with, and not where nothing is left to do."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("nas.run.cluster.CONNECT_S", 0.2)
    run = trained(tmp_path / "run", config)
    _, complaint = nas("sample", "-o", run.folder, "--cluster", "tcp://127.0.0.1:1", code=2)
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in complaint
    assert "--cluster none" in complaint
    assert read_config(run.folder / "run.toml").cluster.address == "none"
    _, complaint = nas("export", "-o", run.folder, "--cluster", "tcp://127.0.0.1:1", code=2)
    assert "Dask" not in complaint


def test_a_device_that_nobody_may_measure_is_said_before_any_work(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("nas.run.cluster.WORKERS_S", 0.2)
    run = trained(tmp_path / "run", RunConfig())
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=1, protocol="tcp://", **options) as running:
        address = running.scheduler_address
        _, complaint = nas("search", "-o", run.folder, "--cluster", address, code=2)
    assert "no worker of tcp://127.0.0.1:" in complaint
    assert f'`dask worker {address} --nworkers 1 --nthreads 1 --resources "device=1"`' in complaint


@pytest.mark.parametrize("document", [{"url": 3}, {"password": "x"}])
def test_the_section_is_checked(document: Mapping[str, Any]) -> None:
    with pytest.raises(TrilobitError, match="storage"):
        parse_config({"storage": document}, origin="test")
