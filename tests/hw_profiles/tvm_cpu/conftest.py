"""Compiled units that all tests of one run share."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("tvm")

from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, host_target
from hw_profiles.runtimes.tvm_cpu.tuning import Database, tune
from hw_profiles.runtimes.tvm_cpu.unit import CompiledUnit


@pytest.fixture(scope="session")
def host() -> TvmTarget:
    return host_target()


@pytest.fixture(scope="session")
def database(host: TvmTarget, tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(tmp_path_factory.mktemp("tuning"), host)


@pytest.fixture(scope="session")
def units_of(database: Database) -> Callable[[Workload], dict[str, CompiledUnit]]:
    """Every unit of a workload by its key, with its first schedule: which is fastest decides nothing here."""

    def compiled(work: Workload) -> dict[str, CompiledUnit]:
        units: dict[str, CompiledUnit] = {}
        for layer, unit in tune(work.layers, database, None):
            assert not isinstance(unit, str), f"{layer.key()}: {unit}"
            units[layer.key()] = unit
        return units

    return compiled


@pytest.fixture
def tiny() -> Layer:
    """A unit that compiles in no time."""
    return map_layer("add", (4, 2, 2), 4, activation_format="int8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tuning"
