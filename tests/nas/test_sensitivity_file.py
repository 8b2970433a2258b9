"""`damage.json`: measured once per supernet, taken up where a killed run left it, and what predictors get."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.allocation.sensitivity_file import run_sensitivity
from nas.run.config import RunConfig
from nas.run.reporting import QUIET
from nas.run.run import Run, open_run
from nas.stages.fit import free_features
from nas.stages.train import run_train
from supernet.data.images import Images
from supernet.sensitivity.kl import format_choices, measure_sensitivity
from supernet.space.space import SearchSpace
from supernet.train.loop import TrainConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained for a step."""
    config = RunConfig(train=TrainConfig(epochs=1, random_subnets=0))
    run = open_run(tmp_path_factory.mktemp("run"), config)
    few = Images(run.task.train.pixels[:64], run.task.train.labels[:64])
    vars(run)["task"] = replace(run.task, train=few, validation=few)  # in place of the cached property
    run_train(run, QUIET)
    return run


def path(run: Run) -> Path:
    return run.folder / "damage.json"


def test_a_killed_measurement_goes_on_where_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, content = run_sensitivity(run), path(run).read_text()
    assert list(whole.options) == format_choices(run.family.space())
    document = json.loads(content)
    del document["options"]["s2.b1.project.format"], document["options"]["classifier.format"]
    path(run).write_text(json.dumps(document))
    asked: list[str] = []

    def measure(space: SearchSpace, names: Sequence[str], *rest: Any, **how: Any) -> Iterator[Any]:
        asked.extend(names)
        return measure_sensitivity(space, names, *rest, **how)

    monkeypatch.setattr("nas.allocation.sensitivity_file.measure_sensitivity", measure)
    assert run_sensitivity(run) == whole
    assert asked == ["s2.b1.project.format", "classifier.format"]
    assert run_sensitivity(run) == whole  # from the file alone
    assert len(asked) == 2


def test_another_supernet_is_measured_anew(run: Run) -> None:
    whole = run_sensitivity(run)
    document = json.loads(path(run).read_text())
    path(run).write_text(json.dumps({**document, "supernet": "another", "options": {"stem.format": [0, 9]}}))
    assert run_sensitivity(run) == whole


def test_predictors_get_the_sum_over_the_living_choices(run: Run) -> None:
    space, options = run.family.space(), run_sensitivity(run).options
    genomes = space.sample(30, rng=np.random.default_rng(0))
    expected = [
        sum(
            options[name][space.choices[space.columns[name]].options.index(option)]
            for name, option in space.decode(space.candidate(genome)).items()
            if name in options
        )
        for genome in genomes
    ]
    found = free_features(run)(genomes)
    assert found.shape == (30, 3)
    np.testing.assert_allclose(found[:, 2], expected)
    genomes[:, [space.columns[name] for name in options]] = 0
    assert (free_features(run)(genomes)[:, 2] == 0).all()


def test_a_damaged_file_is_named(run: Run) -> None:
    content = path(run).read_text()
    document = json.loads(content)
    values = document["options"]["stem.format"]  # of one number format more where integer sums saturate
    document["options"]["stem.format"] = [0.0, *[-1.0] * (len(values) - 1)]
    path(run).write_text(json.dumps(document))
    with pytest.raises(TrilobitError, match=r"sensitivity of stem\.format is \[0\.0, -1\.0"):
        run_sensitivity(run)
    path(run).write_text(content)
