"""An input that decides what runs: fixed where all examples agree, or where that is said; open otherwise."""

from pathlib import Path

import numpy as np
import pytest

from nas.run.reporting import PlainReporter
from nas.tune.pipeline import introduce
from nas.tune.session import resolve, tune_session
from tests.supernet.imported.branching import branching

pytestmark = pytest.mark.usefixtures("confined_here")
RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "speech.onnx"
    path.write_bytes(branching())
    return str(path)


def examples(folder: Path, rates: list[int]) -> str:
    count = 24
    x = RNG.normal(size=(count, 1, 1, 32)).astype(np.float32)
    arrays = {"sr": np.resize(rates, count)} if rates else {}
    np.savez(folder / "examples.npz", x=x, **arrays)
    return str(folder / "examples.npz")


@pytest.mark.parametrize(
    ("rates", "said", "fixed"),
    [
        ([8000], (), {"sr": 8000}),
        ([8000], ("none",), {}),
        ([], ("sr=16000",), {"sr": 16000}),
    ],
)
def test_what_is_fixed(
    model: str, tmp_path: Path, rates: list[int], said: tuple[str, ...], fixed: dict[str, int]
) -> None:
    options = {"model.source": model, "samples.source": examples(tmp_path, rates), "model.fix": said}
    lines: list[str] = []
    with tune_session(tmp_path / "run", options) as context:
        tuning = context.tuning
        introduce(tuning, PlainReporter(lines.append))
        assert tuning.model.fixed == fixed
        assert ("which_conv" in {choice.name for choice in tuning.space.choices}) is bool(fixed)
    assert any("sr is " in line for line in lines) is bool(fixed)
    assert resolve({}, tmp_path / "run").model.fixed == fixed  # what goes on from there knows it too
