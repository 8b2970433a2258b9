"""Work in a process of its own: its answer, and one line for everything else."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.checks.confined import ConfinedError, Limits, confined

HERE = "tests.nas.confined_tasks"


def test_answer_and_arrays_come_back() -> None:
    images = np.arange(6, dtype=np.float32).reshape(2, 3)
    document, arrays = confined(f"{HERE}:double", {"name": "x"}, arrays={"images": images})
    assert document == {"name": "x"}
    np.testing.assert_array_equal(arrays["images"], 2 * images)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("refuse", "not like this"),
        ("crash", "ended by SIGSEGV"),
        ("leave", "gave no answer"),
        ("eat", "needs more than 1 GiB of memory"),
        ("fill", "File too large"),
        ("hang", "no end after 1 s"),
        ("lie", "its answer cannot be read"),
        ("escape", "its answer cannot be read"),
    ],
)
def test_everything_else_is_one_line(task: str, said: str) -> None:
    limits = Limits(wall_s=1.0 if task == "hang" else 30.0, memory_bytes=2**30, file_bytes=2**20)
    with pytest.raises(ConfinedError) as error:
        confined(f"{HERE}:{task}", {}, limits=limits)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_it_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, monotonic = tmp_path / "pid", time.monotonic
    over_s = 1e6  # which have passed as soon as there is something to end
    monkeypatch.setattr("nas.checks.confined.time.monotonic", lambda: monotonic() + over_s * path.exists())
    with pytest.raises(ConfinedError, match="no end"):
        confined(f"{HERE}:multiply", {"path": str(path)})
    pid = int(path.read_text())
    for _ in range(100):
        if not _runs(pid):
            return
        time.sleep(0.05)
    raise AssertionError("still there")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_an_interruption_ends_it() -> None:
    def interrupt(_: float) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        confined(f"{HERE}:hang", {}, on_tick=interrupt)
