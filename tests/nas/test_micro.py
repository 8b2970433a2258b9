"""Arena and flash of finalists: counted where a run asks for them, on runtimes that can count."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import host_runtime
from nas.emit.to_onnx import emit, random_network
from nas.evaluation.micro import TOO_LARGE, counted, micro_metrics, require_micro
from supernet.families.family import Family

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite_micro")

from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.litert.runtime import LitertRuntime
from hw_profiles.runtimes.tflite_micro.interpreter import micro_sizes

LEAN = LitertRuntime(LitertOptions(files="lean"))


def asking(*objectives: str, runtime: Any = LEAN, **constraints: str) -> Any:
    """A run, as far as it is looked at."""
    search = SimpleNamespace(objectives=objectives)
    config = SimpleNamespace(search=search, constraints=constraints)
    return SimpleNamespace(config=config, runtime=runtime, timeless=False)


@pytest.fixture(scope="module")
def model(family: Family) -> bytes:
    work = family.workload(family.extremes()["smallest/int8"])
    return emit(random_network(work, rng=np.random.default_rng(0)))


def test_what_is_asked_for_is_what_the_interpreter_takes(model: bytes) -> None:
    taken = micro_sizes(LEAN.own_file(model))
    for run in (asking("accuracy", "arena", "flash"), asking("accuracy", arena="40KB")):
        require_micro(run)
        assert micro_metrics(run, model) == {"arena": taken.arena_bytes, "flash": taken.flash_bytes}


def test_nothing_is_counted_that_nobody_asks_for(model: bytes) -> None:
    for run in (asking("accuracy", "latency"), asking("arena", runtime=host_runtime())):
        require_micro(run)
        assert micro_metrics(run, model) == {}


def test_what_does_not_run_there_has_no_memory_in_a_run_and_too_much_in_a_tune() -> None:
    with pytest.raises(TrilobitError):
        micro_metrics(asking("arena"), b"no file")
    assert set(counted(LEAN, b"no file").values()) == {TOO_LARGE}
