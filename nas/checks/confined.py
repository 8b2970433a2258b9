"""Work on files of others in a process of its own, with limits of time and memory: whatever happens there,
here it is an answer or one line.

That guards against crashes, endless loops and greed. It is no sandbox: machine code that is run there has the
rights of whoever runs it.
"""

import contextlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.files import json_text

REQUEST, ANSWER, OUTPUT = "request.json", "answer.json", "output.txt"
GIB = 2**30
LARGEST_ANSWER = 64 * 2**20  # bytes of JSON
TICK_S = 0.05
SAID = 160  # characters of what went wrong
Array = NDArray[Any]


@dataclass(frozen=True)
class Limits:
    """What a confined process may use.

    Attributes:
        wall_s: seconds until it is ended.
        memory_bytes: of addresses; engines reserve several times what they touch.
        file_bytes: of each file that it writes.
    """

    wall_s: float = 60.0
    memory_bytes: int = 8 * GIB
    file_bytes: int = 2 * GIB


class ConfinedError(TrilobitError):
    """A confined process gave no answer.

    Attributes:
        ended_by: the signal that ended it; None where it said itself what went wrong, or took too long.
    """

    def __init__(self, message: str, ended_by: int | None = None) -> None:
        super().__init__(message)
        self.ended_by = ended_by


def confined(
    task: str,
    request: Mapping[str, Any],
    *,
    limits: Limits | None = None,
    arrays: Mapping[str, Array] | None = None,
    on_tick: Callable[[float], None] = lambda elapsed_s: None,
) -> tuple[Any, dict[str, Array]]:
    """Return what a function gives that runs in a process of its own, as plain data and arrays.

    Args:
        task: `module:function`; called with the request and the arrays, gives a document and arrays.
        on_tick: called all the time with the seconds since the beginning.

    Raises:
        ConfinedError: it failed, was ended by a limit or a signal, or its answer is none.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
        folder = Path(name)
        listed = _save(folder, arrays or {})
        document = {"task": task, "request": request, "limits": asdict(limits), "arrays": listed}
        (folder / REQUEST).write_text(json_text(document))
        _run(folder, limits, on_tick)
        return _answer(folder, limits)


def _run(folder: Path, limits: Limits, on_tick: Callable[[float], None]) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-P", "-m", "nas.checks.confined"]
    start = time.monotonic()
    with (folder / OUTPUT).open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TICK_S)
                elapsed_s = time.monotonic() - start
                on_tick(elapsed_s)
                if elapsed_s > limits.wall_s:
                    raise ConfinedError(f"no end after {limits.wall_s:.0f} s")
        finally:  # and whatever it started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode < 0:
        raise ConfinedError(f"ended by {_signal_name(-process.returncode)}", -process.returncode)


def _answer(folder: Path, limits: Limits) -> tuple[Any, dict[str, Array]]:
    """Return what a process left, read as text of a stranger."""
    path = folder / ANSWER
    if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST_ANSWER:
        with (folder / OUTPUT).open("rb") as output:
            lines = output.read(100_000).decode(errors="replace").strip().splitlines()
        raise ConfinedError(f"gave no answer ({lines[-1][:SAID] if lines else 'nor a reason'})")
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        if error := answer.get("error"):
            raise ConfinedError(str(error)[:SAID])
        return answer["document"], _load(folder, answer["arrays"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        raise ConfinedError("its answer cannot be read") from None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# -- arrays, as bare numbers in files --------------------------------------------------------------


def _save(folder: Path, arrays: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    for name, array in arrays.items():
        np.ascontiguousarray(array).tofile(folder / f"{name}.bin")
    return {name: {"dtype": array.dtype.str, "shape": array.shape} for name, array in arrays.items()}


def _load(folder: Path, listed: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    arrays = {}
    for name, description in listed.items():
        if not name.isidentifier():
            raise ValueError(name)
        dtype = np.dtype(str(description["dtype"]))
        if dtype.hasobject:
            raise ValueError(name)
        arrays[name] = np.fromfile(folder / f"{name}.bin", dtype).reshape(description["shape"])
    return arrays


# -- in the process itself -------------------------------------------------------------------------


def _limit(limits: Mapping[str, Any]) -> None:
    """Ask the system to keep the limits, where it knows such; a parent that was killed ends nothing."""
    with contextlib.suppress(ImportError):
        import resource

        cores = os.cpu_count() or 1
        for kind, most in (
            (resource.RLIMIT_AS, int(limits["memory_bytes"])),
            (resource.RLIMIT_CPU, int(limits["wall_s"] * cores) + 1),
            (resource.RLIMIT_FSIZE, int(limits["file_bytes"])),
            (resource.RLIMIT_CORE, 0),
        ):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (most, most))


def _work(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / REQUEST).read_text())
    _limit(document["limits"])  # before anything of the engines is loaded
    try:
        function = pkgutil.resolve_name(document["task"])
        answer, arrays = function(document["request"], **_load(folder, document["arrays"]))
        return {"document": answer, "arrays": _save(folder, arrays)}
    except MemoryError:
        return {"error": f"needs more than {document['limits']['memory_bytes'] / GIB:.0f} GiB of memory"}
    except Exception as error:  # whatever an engine rejects, in its own words
        lines = str(error).strip().splitlines()
        return {"error": lines[0] if lines else type(error).__name__}


if __name__ == "__main__":
    folder = Path.cwd()
    (folder / ANSWER).write_text(json.dumps(_work(folder)))
