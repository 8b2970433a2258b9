"""A task that the packages do not know is trained, sampled and searched: its metric is an objective, and
another one a limit.
"""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from nas.problem.targets import resolve_targets
from nas.report.page import write_report
from nas.run.config import DataSection, DeviceSection, RunConfig, SampleSection, SearchSection
from nas.run.documents import QualityFile
from nas.run.front_document import Front
from nas.run.reporting import QUIET
from nas.run.run import open_run
from nas.search.objectives import OBJECTIVES, of_metric
from nas.stages.pipeline import run_stage
from supernet.registry import SOURCES
from supernet.tasks.loading import load_data, load_images
from supernet.tasks.metric import CLASSIFICATION
from supernet.train.config import TrainConfig
from tests.nas.made_up_task import ERROR, WORST


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As entry points of `trilobit.data` and `trilobit.objectives` would do it."""
    monkeypatch.setitem(SOURCES, "vectors", "tests.nas.made_up_task:read")  # type: ignore[arg-type]
    for metric in (ERROR, WORST):
        monkeypatch.setitem(OBJECTIVES, metric.name, of_metric(metric))  # type: ignore[arg-type]


def config(device: str) -> RunConfig:
    return RunConfig(
        data=DataSection("vectors"),
        device=DeviceSection(name=device),
        train=TrainConfig(epochs=2, batch_size=64, random_subnets=0, evaluate_every=1),
        sample=SampleSection(fp32=4, quantized=4),
        search=SearchSection(objectives=("error", "latency"), rounds=1, finalists=2, budget=500, batch=250),
        constraints={"worst": "500"},
    )


@pytest.mark.slow
def test_it_is_searched_for_its_own_metric(profile_file: Path, tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", config(f"recorded:{profile_file}"))
    for stage in ("profile", "train", "sample", "fit", "search", "report"):
        run_stage(run, stage, QUIET)
    front = read_document(run.front_path, Front)
    assert front.metric == "error"
    stated = {o.name: (o.unit, o.direction, o.origin, o.bound) for o in front.objectives}
    assert stated["error"] == ("volts", "min", "metric", None)
    assert stated["worst"] == ("volts", "min", "metric", 500)
    for entry in front.candidates:
        assert 0 < entry.measured["error"].value <= entry.measured["worst"].value <= 500
        assert entry.predicted["error"].std is not None
    rows = read_document(run.quality_path, QualityFile).rows
    assert "error" in {row.objective for row in rows}
    assert "Error against latency" in write_report(run.folder).read_text()


def test_only_what_is_predicted_can_be_searched_for() -> None:
    task = load_data("vectors", seed=0)
    with pytest.raises(TrilobitError, match="this task has no error; its metrics: accuracy"):
        resolve_targets(config("ort"), {}, CLASSIFICATION)
    with pytest.raises(TrilobitError, match="images of classes are needed here, not Regression"):
        load_images("vectors", seed=0)
    assert np.isclose(task.evaluate(task.targets(task.test).numpy(), task.test)["error"], 0)
