"""Every benchmark loads and says what it can be asked for."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def fault(script: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return what keeps a script from being started; None where nothing does."""
    try:
        module: Any = importlib.import_module(script.stem)
        if "__main__" in script.read_text():
            monkeypatch.setattr(sys, "argv", [script.name, "--help"])
            module.main()
            return "did not end after its help"
    except SystemExit as end:
        return None if end.code == 0 else f"exit code {end.code}"
    except Exception as error:  # all offenders are listed
        return repr(error)
    return None


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_every_benchmark_answers_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    faults = {path.stem: fault(path, monkeypatch) for path in sorted(BENCHMARKS.glob("*.py"))}
    assert {name: why for name, why in faults.items() if why} == {}
    assert "usage: accelerator_model.py" in capsys.readouterr().out
