"""`nas worker` and shared storages on the command line: who may join, and what is never written down."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from nas.cli.main import main
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import supernet_identity
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.evaluation.sharing import agree
from nas.run.config import RunConfig
from nas.run.config_file import parse_config, read_config, render_config
from nas.run.default_formats import formats_of_layers
from nas.run.documents import Environment
from nas.run.run import Run, open_run
from supernet.families.family import load_family

Nas = Callable[..., tuple[str, str]]
SERVER = "postgresql+psycopg://me:s3cret@127.0.0.1:1/trilobit"  # nothing listens there


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


@pytest.fixture
def config(profile_file: Path, url: str) -> RunConfig:
    document = {"device": {"name": f"recorded:{profile_file}"}, "storage": {"url": url}}
    return parse_config(document, origin="test")


def trained(folder: Path, config: RunConfig) -> Run:
    """A run whose supernet counts as trained; its weights are any bytes."""
    run = open_run(folder, config)
    run.checkpoint_path.parent.mkdir()
    run.checkpoint_path.write_bytes(b"weights")
    run.mark_done("train", 1.0)
    return run


@pytest.fixture
def folder(tmp_path: Path, config: RunConfig) -> Path:
    """A worker's copy of the run."""
    return trained(tmp_path / "copy", config).folder


@pytest.fixture
def nas(capsys: pytest.CaptureFixture[str]) -> Nas:
    """Runs a command; gives what it printed, on both streams."""

    def command(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
        assert main([*map(str, arguments)]) == code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return command


def lead(config: RunConfig, folder: Path, **changed: Any) -> Run:
    """The machine that leads a run has begun to sample."""
    run = trained(folder, replace(config, **changed))
    agree(SupernetEvaluator(NetworkBuilder(run)).samples, supernet_identity(run))
    return run


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.evaluation.worker.POLL_S", 0.01)


def test_a_worker_of_the_same_run_joins(nas: Nas, config: RunConfig, folder: Path, tmp_path: Path) -> None:
    lead(config, tmp_path / "leader")
    printed, _ = nas("worker", "-o", folder, "--idle", "0.05s")
    assert "samples: joined sqlite:///" in printed
    assert "evaluated 0 samples, 0 finalists" in printed


def test_a_worker_waits_for_a_run_to_begin(nas: Nas, folder: Path) -> None:
    printed, _ = nas("worker", "-o", folder, "--idle", "0.05s", "--json")
    assert json.loads(printed)["evaluated"] == {"samples": 0, "finalists": 0}


def test_a_worker_of_another_run_is_refused(
    nas: Nas, config: RunConfig, folder: Path, tmp_path: Path
) -> None:
    lead(config, tmp_path / "leader", train=replace(config.train, epochs=3), seed=7)
    _, complaint = nas("worker", "-o", folder, code=2)
    assert f"train.epochs {config.train.epochs} here, 3 there" in complaint
    assert "seed 0 here, 7 there" in complaint
    assert "copy the run folder" in complaint
    assert "weights" not in complaint


def test_other_weights_are_refused(nas: Nas, config: RunConfig, folder: Path, tmp_path: Path) -> None:
    lead(config, tmp_path / "leader")
    (folder / "supernet" / "last.pt").write_bytes(b"others")
    _, complaint = nas("worker", "-o", folder, code=2)
    assert "weights" in complaint
    assert "train." not in complaint


def test_a_worker_in_a_shared_folder_waits_for_the_weights(
    nas: Nas, config: RunConfig, folder: Path, tmp_path: Path
) -> None:
    """An older run in the same database does not matter while this one's supernet is trained."""
    lead(config, tmp_path / "older", seed=7)
    (folder / "state.json").unlink()
    printed, _ = nas("worker", "-o", folder, "--idle", "0.05s")
    assert "joined" not in printed


def test_measured_devices_are_left_alone(
    config: RunConfig, folder: Path, tmp_path: Path, nas: Nas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --measure a worker takes samples only, whatever waits."""
    # both devices round weights alike, or these would be two runs
    monkeypatch.setattr("hw_profiles.runtimes.ort.runtime.integer_sums", lambda provider: "exact")
    measured = replace(config, device=replace(config.device, name="ort"))
    run = trained(tmp_path / "measured", measured)
    agree(SupernetEvaluator(NetworkBuilder(run)).samples, supernet_identity(run))
    printed, _ = nas("worker", "-o", run.folder, "--idle", "0.05s")
    assert "samples: joined" in printed
    assert "finalists:" not in printed
    printed, _ = nas("worker", "-o", folder, "--idle", "0.05s")  # numbers that are looked up
    assert "finalists: on made-up-cpu (no CPU)" in printed


def test_a_device_that_is_not_here_leaves_finalists_to_others(
    nas: Nas, config: RunConfig, folder: Path, tmp_path: Path
) -> None:
    lead(config, tmp_path / "leader")
    elsewhere = replace(config, device=replace(config.device, name="recorded:nowhere.json"))
    (folder / "run.toml").write_text(render_config(elsewhere))
    printed, _ = nas("worker", "-o", folder, "--idle", "0.05s")
    assert "finalists: left to others (nowhere.json" in printed
    assert "samples: joined" in printed
    _, complaint = nas("worker", "-o", folder, "--idle", "0.05s", "--measure", code=2)
    assert "nowhere.json" in complaint


@pytest.mark.parametrize("sums", ["exact", "saturating"])
def test_weights_are_rounded_for_the_runs_device_not_for_the_workers(
    config: RunConfig, folder: Path, sums: str
) -> None:
    formats = ("fp32", "int8", "int8-exact")
    leader = Environment({}, 0, integer_sums=sums, formats=formats)
    elsewhere = replace(config, device=replace(config.device, name="recorded:nowhere.json"))
    run = Run(folder, elsewhere, leader=leader)
    assert run.sums.reduced == (sums == "saturating")
    own = load_family("digits-mbconv", in_channels=1, classes=10)
    expected = formats_of_layers(own.space()) if sums == "exact" else formats
    assert formats_of_layers(run.family.space()) == expected


def test_a_folder_says_what_its_device_computes(folder: Path) -> None:
    environment = read_document(folder / "env.json", Environment)
    assert environment.integer_sums == str(Run(folder, read_config(folder / "run.toml")).sums)
    assert "int8" in environment.formats


def test_a_run_of_its_own_has_no_workers(nas: Nas, config: RunConfig, tmp_path: Path) -> None:
    open_run(tmp_path / "run", replace(config, storage=replace(config.storage, url="")))
    _, complaint = nas("worker", "-o", tmp_path / "run", code=2)
    assert "start `nas run --storage URL`" in complaint


def test_status_counts(nas: Nas, config: RunConfig, folder: Path, tmp_path: Path) -> None:
    leader = SupernetEvaluator(NetworkBuilder(lead(config, tmp_path / "leader"))).sampling
    space = leader.store.space
    leader.queue.enqueue(map(space.candidate, space.sample(2, rng=np.random.default_rng(0))))
    leader.queue.claim(1)
    printed, said = nas("worker", "-o", folder, "--status", "--json")
    [counts] = json.loads(printed)["studies"].values()
    assert counts == {"done": 0, "waiting": 1, "claimed": 1, "workers": [leader.queue.name]}
    assert "0 done, 1 claimed by 1 workers, 1 waiting" in said


def test_passwords_stay_out_of_files_and_messages(nas: Nas, config: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    shared = replace(config, storage=replace(config.storage, url=SERVER))
    assert "s3cret" not in repr(shared)
    run = trained(tmp_path / "run", shared)
    written = read_config(run.folder / "run.toml").storage
    assert written.url == "postgresql+psycopg://me@127.0.0.1:1/trilobit"
    for command in ("worker", "sample", "run"):
        printed, complaint = nas(command, "-o", run.folder, "--storage", SERVER, code=2)
        assert "me@127.0.0.1:1/trilobit: " in complaint
        assert "s3cret" not in printed + complaint
    for path in run.folder.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()


def test_a_storage_that_is_no_url_is_not_written_down(nas: Nas, config: RunConfig, tmp_path: Path) -> None:
    _, complaint = nas("profile", "-o", tmp_path / "run", "--storage", "s3cret", code=2)
    assert "not a URL" in complaint
    assert not list(tmp_path.rglob("run.toml"))


@pytest.mark.parametrize("document", [{"grace_s": 0}, {"url": 3}, {"password": "x"}])
def test_the_section_is_checked(document: Mapping[str, Any]) -> None:
    with pytest.raises(TrilobitError, match="storage"):
        parse_config({"storage": document}, origin="test")
