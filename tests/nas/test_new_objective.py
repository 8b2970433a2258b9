"""A cost that the packages do not know becomes an objective and a limit by one entry of the registry."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.documents import read_document
from hw_profiles.graph.layer import Layer
from nas.cli.flag import LIMITS
from nas.cli.flags import RUN_GROUPS
from nas.report.page import write_report
from nas.run.config import DeviceSection, RunConfig, SampleSection, SearchSection
from nas.run.front_document import Front
from nas.run.reporting import QUIET
from nas.run.run import open_run
from nas.search.objectives import OBJECTIVES, Count, Objective, objective
from nas.search.units import show
from nas.stages.pipeline import run_stage
from supernet.families.family import Family
from supernet.train.config import TrainConfig


def weights(layer: Layer) -> float:
    """Numbers that a layer learns, biases left out."""
    shape = (layer.out_channels, layer.in_shape[0] // layer.groups, layer.kernel, layer.kernel)
    return float(np.prod(shape)) if layer.weighted else 0.0


PARAMS = Objective(
    "params", "weights", "min", origin="count", count=Count(weights), meaning="learned numbers"
)
LIMIT = 60_000


@pytest.fixture(scope="module")
def folder(profile_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that searched with the objective, and limited it."""
    path = tmp_path_factory.mktemp("new") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBJECTIVES, "params", PARAMS)  # type: ignore[arg-type]
        config = RunConfig(
            device=DeviceSection(name=f"recorded:{profile_file}"),
            train=TrainConfig(epochs=1, batch_size=256, random_subnets=0),
            sample=SampleSection(fp32=4, quantized=4, images=50),
            constraints={"params": "60K"},
            search=SearchSection(
                objectives=("accuracy", "params"), rounds=1, finalists=2, budget=500, batch=250
            ),
        )
        run = open_run(path, config)
        for stage in ("profile", "train", "sample", "fit", "search", "report"):
            run_stage(run, stage, QUIET)
    return path


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "params", PARAMS)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_front_has_it_within_its_limit(folder: Path, family: Family) -> None:
    front = read_document(folder / "front.json", Front)
    [stated] = [stated for stated in front.objectives if stated.name == "params"]
    assert (stated.bound, stated.unit, stated.direction, stated.origin) == (LIMIT, "weights", "min", "count")
    space = family.space()
    for entry in front.candidates:
        layers = family.workload(space.candidate(np.array(entry.genes, np.int16))).layers
        assert entry.predicted["params"].value == sum(map(weights, layers)) <= LIMIT


@pytest.mark.slow
def test_the_report_shows_it(folder: Path) -> None:
    page = write_report(folder).read_text()
    front = read_document(folder / "front.json", Front)
    assert "Accuracy against params" in page
    assert show(PARAMS, float(front.candidates[0].predicted["params"].value or 0)) in page


def test_a_limit_on_any_objective_has_one_flag() -> None:
    [flag] = [flag for group in RUN_GROUPS for flag in group.flags if flag.key == LIMITS]
    assert flag.read("params<=2M") == ("params", "2M")
    assert objective("params").unit == "weights"
