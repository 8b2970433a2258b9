"""Whole runs in processes of their own: real data and training, made-up latencies that never change."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from hw_profiles.engines import EXTRAS, PACKAGES

TIMEOUT_S = 400  # of whole runs, on a busy machine
# One thread: the order of sums, and with it every number, is the same in every process.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}

Start = Callable[..., "subprocess.Popen[str]"]
Nas = Callable[..., str]
WriteRun = Callable[..., Path]

# As small as a run can be that measures, trains and exports for itself.
SMALL: dict[str, dict[str, Any]] = {
    "profile": {"share": 0.05},
    "train": {"epochs": 1, "batch_size": 64, "random_subnets": 1},
    "sample": {"fp32": 4, "quantized": 4},
    "fit": {"predictor": "ridge"},
    "search": {"rounds": 1, "finalists": 2, "budget": 100, "batch": 50},
    "export": {"count": 1},
}


@pytest.fixture(scope="session")
def start() -> Start:
    """Starts a `nas` command."""

    def command(*arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "nas.cli.main", *map(str, arguments)]
        settings = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(line, text=True, **settings)

    return command


@pytest.fixture(scope="session")
def nas(start: Start) -> Nas:
    """Runs a `nas` command that must succeed without complaint; gives what it printed."""

    def command(*arguments: str | Path, **options: Any) -> str:
        process = start(*arguments, **options)
        printed, complaint = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, complaint) == (0, "")
        return printed

    return command


@pytest.fixture(scope="session")
def small_run(quick_measuring: str) -> WriteRun:
    """Writes the configuration of a small run, with other settings where sections are given."""

    def write(path: Path, **changes: dict[str, Any]) -> Path:
        sections = {name: {**SMALL.get(name, {}), **changes.get(name, {})} for name in {**SMALL, **changes}}
        path.write_text(tomli_w.dumps(sections) + quick_measuring)
        return path

    return write


@pytest.fixture(scope="session")
def config(profile_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As small as a run can be and still do everything."""
    sections = {
        "device": {"name": f"recorded:{profile_file}"},
        "train": {"epochs": 1, "batch_size": 128, "random_subnets": 1, "checkpoint_s": 0.0},
        "sample": {"fp32": 5, "quantized": 5},
        "fit": {"predictor": "ridge"},
        "search": {"rounds": 2, "finalists": 3, "budget": 400, "batch": 100},
        "export": {"count": 3},
    }
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(tomli_w.dumps(sections))
    return path


@pytest.fixture(scope="session")
def without_extras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which nothing that only an extra brings can be imported."""
    extras = [module for module, package in PACKAGES.items() if package in EXTRAS]
    path = tmp_path_factory.mktemp("blocked") / "sitecustomize.py"
    path.write_text(f"import sys\nsys.modules.update(dict.fromkeys({extras}))\n")
    paths = (str(path.parent), ENVIRONMENT.get("PYTHONPATH", ""))
    return {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="session")
def finished_run(
    nas: Nas, config: Path, without_extras: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that nobody interrupted, and that no extra was needed for; tests only read it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    nas("run", config, "-o", folder, env=without_extras)
    return folder


@pytest.fixture(scope="session")
def read() -> Callable[[Path], dict[str, Any]]:
    """A JSON file."""
    return lambda path: json.loads(path.read_text())
