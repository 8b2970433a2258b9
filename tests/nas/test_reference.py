"""Workers open a run by its folder, once, and evaluate as the command does; or refuse, and say why."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.allocation.sensitivity_file import choice_sensitivities
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.evaluation.reference import DEPENDS, opened, reference_to
from nas.run.cluster import Cluster, RefusedError
from nas.run.config import RunConfig
from nas.run.config_file import parse_config, render_config
from nas.run.reporting import QUIET
from nas.run.run import Run, open_run
from nas.stages.train import run_train
from supernet.data.images import Images
from supernet.sensitivity.kl import format_choices
from supernet.space.space import Candidate

distributed = pytest.importorskip("distributed")
SECRET = "postgresql+psycopg://me:s3cret@127.0.0.1:1/trilobit"


@pytest.fixture(scope="module")
def trained(profile_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained for a step, on a device whose times are looked up."""
    document = {
        "device": {"name": f"recorded:{profile_file}"},
        "train": {"epochs": 1, "random_subnets": 0},
        "sample": {"images": 64},
    }
    config = parse_config(document, origin="test")
    run = open_run(tmp_path_factory.mktemp("run"), config)
    few = Images(run.task.train.pixels[:64], run.task.train.labels[:64])
    vars(run)["task"] = replace(run.task, train=few, validation=few)  # in place of the cached property
    run_train(run, QUIET)
    return Run(run.folder, config)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=2, **options) as running,
        Cluster(running.scheduler_address) as own,
    ):
        yield own


def copied(run: Run, folder: Path, cluster: Cluster | None = None) -> Run:
    """The same run, with a storage of its own."""
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("run.db"))
    return Run(folder, run.config, cluster=cluster)


@pytest.fixture
def alone(trained: Run, tmp_path: Path) -> NetworkBuilder:
    return NetworkBuilder(copied(trained, tmp_path / "alone"))


@pytest.fixture
def together(trained: Run, cluster: Cluster, tmp_path: Path) -> NetworkBuilder:
    return NetworkBuilder(copied(trained, tmp_path / "together", cluster))


def candidates(run: Run, n: int) -> list[Candidate]:
    space = run.family.space()
    return [space.candidate(genome) for genome in space.sample(n, rng=np.random.default_rng(0))]


def test_samples_are_what_they_are_alone(alone: NetworkBuilder, together: NetworkBuilder) -> None:
    sampled = candidates(alone.run, 4)
    expected = list(SupernetEvaluator(alone).sample(sampled))
    assert list(SupernetEvaluator(together).sample(sampled)) == expected
    assert len(set(expected)) > 1


def test_finalists_are_what_they_are_alone(alone: NetworkBuilder, together: NetworkBuilder) -> None:
    finalists = candidates(alone.run, 2)
    assert list(DeviceEvaluator(together).measure(finalists)) == list(
        DeviceEvaluator(alone).measure(finalists)
    )


def test_latencies_are_measured_by_workers_that_may(
    alone: NetworkBuilder, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the device is timed; there is none here that gives the same numbers twice."""
    finalists = candidates(alone.run, 3)
    expected = list(DeviceEvaluator(alone).measure(finalists))
    monkeypatch.setattr(Run, "recorded", property(lambda run: False))
    asked, ask = list[dict[str, bool]](), Cluster.answers

    def answers(cluster: Cluster, function: Any, items: Any, **how: bool) -> Any:
        asked.append(how)
        return ask(cluster, function, items, **how)

    monkeypatch.setattr(Cluster, "answers", answers)
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    running = distributed.LocalCluster(n_workers=2, resources={"device": 1}, **options)
    with running, Cluster(running.scheduler_address) as own:
        run = copied(trained, tmp_path / "measured", own)
        assert list(DeviceEvaluator(NetworkBuilder(run)).measure(finalists)) == expected
    assert asked == [{}, {"measuring": True}]


def test_answers_are_kept_where_timing_is_interrupted(
    together: NetworkBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    [finalist] = candidates(together.run, 1)

    def lost(*_: object) -> None:
        raise TrilobitError("the scheduler is gone")

    with monkeypatch.context() as patch:
        patch.setattr(DeviceEvaluator, "_times", lost)
        with pytest.raises(TrilobitError, match="is gone"):
            list(DeviceEvaluator(together).measure([finalist]))
    monkeypatch.setattr(Cluster, "answers", lambda *_, **__: iter(()))  # nothing is asked again
    assert len(list(DeviceEvaluator(together).measure([finalist]))) == 1


def test_sensitivity_is_what_it_is_alone(alone: NetworkBuilder, together: NetworkBuilder) -> None:
    names = format_choices(alone.run.family.space())[:3]
    smallest = alone.run.family.extreme("smallest")
    expected = list(choice_sensitivities(alone.run, names, smallest))
    assert sorted(choice_sensitivities(together.run, names, smallest)) == sorted(expected)


def test_a_run_is_opened_once_whatever_is_evaluated(trained: Run) -> None:
    builders = []
    for kind in DEPENDS:
        with opened(reference_to(trained, kind)) as builder:
            builders.append(builder)
    assert all(builder is builders[0] for builder in builders)


def test_a_reference_holds_no_secrets_of_the_leader(trained: Run) -> None:
    shared = replace(trained.config, storage=replace(trained.config.storage, url=SECRET))
    reference = reference_to(Run(trained.folder, shared), "supernet")
    assert "s3cret" not in repr(reference)
    assert reference == reference_to(trained, "supernet")


@pytest.mark.parametrize("kind", ["supernet", "answers", "device"])
def test_a_folder_that_is_not_there_is_refused(trained: Run, kind: str, tmp_path: Path) -> None:
    elsewhere = replace(reference_to(trained, kind), folder=str(tmp_path / "nowhere"))
    with (
        pytest.raises(RefusedError, match=r"does not see the run's folder \S+/nowhere: share that folder"),
        opened(elsewhere),
    ):
        pass


def test_other_weights_are_refused(trained: Run, tmp_path: Path) -> None:
    reference = reference_to(trained, "supernet")
    other = copied(trained, tmp_path / "other")
    other.checkpoint_path.write_bytes(b"others")
    with (
        pytest.raises(RefusedError, match=r"weights \w+ here, \w+ there"),
        opened(replace(reference, folder=str(other.folder))),
    ):
        pass


def test_another_device_is_refused_for_measuring_alone(trained: Run, tmp_path: Path) -> None:
    reference = reference_to(trained, "device")
    changed = reference.depends.replace('"made-up-cpu"', '"another-cpu"')
    with opened(replace(reference, kind="supernet", depends="{}")):
        pass
    with (
        pytest.raises(RefusedError, match=r"device\.name another-cpu here, made-up-cpu there"),
        opened(replace(reference, depends=changed)),
    ):
        pass


def test_data_that_is_elsewhere_is_refused(trained: Run) -> None:
    source = replace(trained.config.data, source="imagefolder:/no/such/folder")
    config: RunConfig = replace(trained.config, data=source)
    reference = reference_to(trained, "supernet")
    with (
        pytest.raises(RefusedError, match="/no/such/folder"),
        opened(replace(reference, config=render_config(config))),
    ):
        pass
