"""Mixes against recipes: what counts as equal quality, and what is left out."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.nas.tune import fronts

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("runtimes")


def judged(*candidates: tuple[str, float, float]) -> Any:
    """A front of files, by name, time as a share of the original's, and divergence."""
    return fronts.front(
        candidates=[fronts.network(name, ["/layer0"], ratio, kl) for name, ratio, kl in candidates]
    )


def test_of_files_that_are_no_worse_than_the_recipe_the_fastest_is_compared(runtimes: Any) -> None:
    front = judged(("worse", 0.4, 0.5), ("good", 0.5, 0.3), ("better", 0.9, 0.1))
    recipe = runtimes.recipe_of("ort", front)
    assert recipe.name == "defaults"
    assert runtimes.at_equal_quality(front, recipe).id == "good"
    row = runtimes.mix_row("task", front, recipe, {})
    assert row.ours == pytest.approx(1.1 / 0.5)
    assert row.peers["the mix against fp32"] == pytest.approx(2.0)
    assert row.peers["kl of defaults"] == pytest.approx(0.4)


def test_where_nothing_is_good_enough_the_original_is(runtimes: Any) -> None:
    front = judged(("worse", 0.4, 0.5))
    assert runtimes.at_equal_quality(front, runtimes.recipe_of("ort", front)) is front.original


def test_a_runtime_that_does_not_take_a_model_is_left_out(
    runtimes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "mine.onnx"
    benchmark = runtimes.Benchmark(tmp_path, ("ort", "tvm"), (model,), tmp_path, "digits-mbconv", (), True)

    def refused(*given: Any) -> None:
        raise runtimes.RefusedError("no data for mine.onnx here")

    monkeypatch.setattr(runtimes, "tuned_for", refused)
    assert list(runtimes.mixes(benchmark)) == []
    assert list(runtimes.together(benchmark)) == []
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        f"mixes, mine on {name}: left out: no data for mine.onnx here" for name in ("ort", "tvm")
    ]
    assert "nothing is tuned yet" in said[2]
