"""Engines besides evolution, in a run whose earlier stages are done: the front is measured as ever."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supernet.families.family import Family


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def entries(front: dict[str, Any]) -> list[dict[str, Any]]:
    return [*front["candidates"], *front["evaluated"]]


def measured(front: dict[str, Any], name: str) -> np.ndarray:
    return np.array([entry["measured"][name]["value"] for entry in entries(front)])


@pytest.mark.slow
def test_a_search_by_reference_points_heads_for_the_limit(own_run: Path, nas, read) -> None:
    printed = nas("search", "-o", own_run, "--engine", "rnsga2", "--max-latency", "60%")
    assert "fit: " not in printed
    front = read(own_run / "front.json")
    bound = next(o["bound"] for o in front["objectives"] if o["name"] == "latency")
    assert all(e["measured"]["latency"]["value"] <= bound for e in front["candidates"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["nsga3", "optuna-nsga2", "tpe", "aging"])
def test_every_engine_ends_with_a_measured_front(own_run: Path, nas, read, engine: str, config: Path) -> None:
    quick = own_run / "quick.toml"
    quick.write_text(
        config.read_text().replace("budget = 400", "budget = 120").replace("batch = 100", "batch = 40")
    )
    nas("search", quick, "-o", own_run, "--engine", engine)
    front = read(own_run / "front.json")
    assert len(front["candidates"]) >= 1
    assert len(entries(front)) == 7  # two rounds of three, and the largest network in fp32
    assert f'searcher = "{engine}"' in (own_run / "run.toml").read_text()


@pytest.mark.slow
def test_formats_of_one_architecture(own_run: Path, nas, read, family: Family) -> None:
    """Allocated and measured like finalists; then exported and reported like any other."""
    command = ("search", "-o", own_run, "--engine", "milp", "--max-size", "60%")
    nas(*command)
    front = read(own_run / "front.json")
    largest = family.extremes()["largest/fp32"]
    kinds = np.array([choice.kind for choice in family.space().choices])
    rows = np.array([entry["genes"] for entry in entries(front)])
    assert (rows[:, kinds != "precision"] == np.array(largest.genes)[kinds != "precision"]).all()
    assert len(rows) == 4  # as many as finalists, and the largest network in fp32
    bound = next(o["bound"] for o in front["objectives"] if o["name"] == "size")
    assert (np.sort(measured(front, "size"))[:-1] <= bound * 1.02).all()
    assert {"accuracy", "latency"} <= set(front["candidates"][0]["predicted"])
    assert "search: already there" in nas(*command)
    nas("export", "-o", own_run)
    nas("report", "-o", own_run)
    exported = {path.parent.name for path in (own_run / "export").glob("*/manifest.json")}
    assert exported
    assert exported <= {entry["id"] for entry in front["candidates"]}


@pytest.mark.slow
def test_allocation_needs_no_samples(nas, read, config: Path, finished_run: Path, tmp_path: Path) -> None:
    """A profile and a trained supernet are enough, for each sensitivity."""
    folder = tmp_path / "run"
    for name in ("profiles", "supernet"):
        shutil.copytree(finished_run / name, folder / name)
    found = {}
    for kind, end in (("hessian", "largest"), ("sqnr", "smallest")):
        settings = ("--engine", "milp", "--sensitivity", kind, "--architecture", end, "--max-size", "50%")
        nas("search", config, "-o", folder, *settings)
        found[kind] = read(folder / "front.json")
        assert "accuracy" not in found[kind]["candidates"][0]["predicted"]
        assert len(entries(found[kind])) == 4
    assert measured(found["sqnr"], "size").mean() < measured(found["hessian"], "size").mean()
    nas("report", "-o", folder)
