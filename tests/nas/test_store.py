"""The store of expensive evaluations: what was finished is found again, and only that."""

from pathlib import Path
from typing import NoReturn

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError

from hw_profiles.errors import TrilobitError
from nas.evaluation.store import EvaluationStore
from nas.search.objectives import objective
from supernet.families.family import load_family
from supernet.space.space import Candidate

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
OBJECTIVES = [objective("accuracy"), objective("latency")]
ATTRIBUTES = {"source": "measured", "error": None}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'run.db'}"


def store(url: str, name: str = "measured", *, decisions: bool = True) -> EvaluationStore:
    return EvaluationStore(url, name, SPACE, OBJECTIVES, decisions=decisions)


def candidates(n: int) -> list[Candidate]:
    return [SPACE.candidate(genome) for genome in SPACE.sample(n, rng=np.random.default_rng(0))]


def test_what_was_added_is_found(url: str) -> None:
    opened, (one, other) = store(url), candidates(2)
    opened.add(one, {"latency": 2e-5, "accuracy": 0.9}, ATTRIBUTES)
    found = opened.get(one)
    assert found is not None
    assert found[0] == {"accuracy": 0.9, "latency": 2e-5}
    assert ATTRIBUTES.items() <= found[1].items()
    assert opened.get(other) is None


@pytest.mark.parametrize("decisions", [True, False])
def test_what_was_added_is_found_after_reopening(url: str, decisions: bool) -> None:
    drawn = candidates(3)
    for i, candidate in enumerate(drawn):
        store(url, decisions=decisions).add(candidate, {"accuracy": i / 3, "latency": 1e-5}, ATTRIBUTES)
    reopened = store(url, decisions=decisions)
    assert len(reopened) == 3
    for i, candidate in enumerate(drawn):
        found = reopened.get(candidate)
        assert found is not None
        assert found[0]["accuracy"] == i / 3
        assert found[1]["genes"] == list(candidate.genes)


def test_numbers_come_back_exactly(url: str) -> None:
    values = {"accuracy": 1 / 3, "latency": 1.7976931348623157e308}
    [candidate] = candidates(1)
    store(url).add(candidate, values, {})
    found = store(url).get(candidate)
    assert found is not None
    assert found[0] == values


def test_studies_do_not_see_each_other(url: str) -> None:
    [candidate] = candidates(1)
    store(url, "one").add(candidate, {"accuracy": 0.5, "latency": 1.0}, {})
    assert store(url, "other").get(candidate) is None


def test_the_dashboard_finds_directions_and_decisions(url: str) -> None:
    [candidate] = candidates(1)
    store(url).add(candidate, {"accuracy": 0.5, "latency": 1.0}, {})
    study = optuna.load_study(study_name="measured", storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.trials[0].params == SPACE.decode(candidate)


def test_unfinished_evaluations_are_not_found(url: str) -> None:
    opened = store(url)
    optuna.load_study(study_name="measured", storage=url).ask()
    assert len(opened) == len(store(url)) == 0


def test_a_damaged_storage_is_named(tmp_path: Path, url: str) -> None:
    (tmp_path / "run.db").write_text("no database")
    with pytest.raises(TrilobitError, match=r"run\.db: .*; put a copy of it back, or delete it"):
        store(url)


def test_a_full_disk_is_named_and_loses_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise StorageInternalError("An exception is raised during the commit.") from OSError("disk is full")

    one, other = candidates(2)
    opened = store(url)
    opened.add(one, {"accuracy": 0.5, "latency": 1.0}, {})
    monkeypatch.setattr(optuna.Study, "add_trial", fail)
    with pytest.raises(TrilobitError, match=r"run\.db: disk is full; make room"):
        opened.add(other, {"accuracy": 0.5, "latency": 1.0}, {})
    assert opened.get(other) is None
    assert store(url).get(one) is not None
