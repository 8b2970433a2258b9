"""Policies of a tune are as good when a cluster evaluates them; what is another tune there is refused."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from nas.run.cluster import Cluster, RefusedError
from nas.run.reporting import QUIET
from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.on_worker import _reference_to, found_by, quality_there
from nas.tune.pipeline import _STAGES
from nas.tune.policies.first_policies import varied_policies
from nas.tune.session import tune_session
from tests.nas.emit.small_networks import Net

distributed = pytest.importorskip("distributed")
SAMPLES = 40


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TuneContext]:
    """Calibrated, and nothing evaluated."""
    folder, net = tmp_path_factory.mktemp("tune"), Net(1)
    x = net.relu6(net.conv("image", 3, 8))
    pooled = net.op("ReduceMean", net.relu6(net.conv(x, 8, 8)), net.constant(np.array([2, 3])), keepdims=0)
    scores = net.op("Softmax", net.linear(pooled, 8, 5))
    (folder / "net.onnx").write_bytes(net.finish({"image": (1, 3, 12, 12)}, {scores: (1, 5)}))
    images = np.random.default_rng(0).normal(size=(SAMPLES, 3, 12, 12)).astype(np.float32)
    np.savez(folder / "images.npz", image=images)
    options = {
        "model.source": str(folder / "net.onnx"),
        "samples.source": str(folder / "images.npz"),
        **{"tune.choosing": 12, "tune.judging": 12, "tune.evaluations": 12, "tune.finalists": 2},
    }
    with tune_session(folder / "run", options) as opened:
        for stage in ("import", "calibrate"):
            _STAGES[stage](opened, QUIET)
        yield opened


def plain(qualities: list) -> list[str]:
    return [repr({**asdict(quality), "error": np.asarray(quality.error).tolist()}) for quality in qualities]


def test_a_cluster_finds_what_this_process_finds(context: TuneContext) -> None:
    genomes = varied_policies(context.space, 3, rng=np.random.default_rng(0))
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=2, **options) as running,
        Cluster(running.scheduler_address) as own,
    ):
        found = dict(found_by(own, context.tuning)(genomes))
    here = dict(TuneContext(context.tuning)._find_here(genomes))
    assert plain([found[i] for i in range(3)]) == plain([here[i] for i in range(3)])


def test_another_tune_is_refused(context: TuneContext, tmp_path: Path) -> None:
    reference, genes = _reference_to(context.tuning), (0,) * len(context.space.choices)
    with pytest.raises(RefusedError, match="does not see the run's folder"):
        quality_there(replace(reference, folder=str(tmp_path / "nowhere")), genes)
    changed = reference.identity.replace('"model": "', '"model": "0')
    with pytest.raises(RefusedError, match=r"model 0\w+ here, \w+ there; its folder, data and software"):
        quality_there(replace(reference, identity=changed), genes)
