"""Boards that are this machine, behind a pipe, and agents that do not behave."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.measure.in_context import in_context
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.ort.elsewhere import OrtHere
from hw_profiles.runtimes.ort.options import OrtOptions
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.board_kind import boards_of
from hw_profiles.runtimes.transports.board_runtime import BoardRuntime
from hw_profiles.runtimes.transports.board_transport import BoardTransport
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.launch import PythonAgent
from hw_profiles.runtimes.transports.ssh import PROGRAM


@dataclass(frozen=True)
class Pipe:
    """This machine as a board.

    Attributes:
        label: of several.
        instead: a Python program that runs in place of the agent.
        modules: folder whose modules go before those that are installed.
    """

    label: str = "here"
    instead: str = ""
    modules: str = ""

    @property
    def name(self) -> str:
        return f"pipe:{self.label}"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", self.instead, *command] if self.instead else list(command)
        try:
            return self._started(program)
        except FileNotFoundError:  # as a shell says it
            return self._started(["sh", "-c", 'echo "$0: not found" >&2; exit 127', program[0]])

    def _started(self, program: Sequence[str]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": self.modules}
        return subprocess.Popen(
            program,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            start_new_session=True,
            cwd="/",
            env=environment,
        )

    def failure(self, returncode: int, said: str) -> BoardLost:
        last = said.strip().splitlines()[-1] if said.strip() else f"exit code {returncode}"
        return BoardLost(f"{self.name} was lost ({last})")


# stands where ONNX Runtime would, starts at once, and does what the content of a "file" says
ENGINE = """
import os, signal, sys, time
import numpy as np
__version__ = {version!r}
print("an engine that chatters", flush=True)
class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass
def get_available_providers():
    return ["CPUExecutionProvider"]
class Tensor:
    name, shape, type = "x", ["n", 2], "tensor(float)"
class Output:
    name, shape, type = "y", ["n", 2], "tensor(float)"
class InferenceSession:
    def __init__(self, content, options, providers):
        self.words = content.decode().split()
        if "reject" in self.words:
            raise RuntimeError("rejects this file\\nand says more")
        if "crash" in self.words:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in self.words:
            time.sleep(1000)
    def get_providers(self):
        return ["CPUExecutionProvider"]
    def get_inputs(self):
        return [Tensor]
    def get_outputs(self):
        return [Output]
    def run(self, names, inputs):
        return [2 * inputs["x"]]
    def io_binding(self):
        return self
    def bind_cpu_input(self, name, array):
        self.bound = array
    def bind_output(self, name):
        pass
    def run_with_iobinding(self, binding):
        if "slow" in self.words:
            time.sleep(0.01)
"""


def engine(folder: Path, version: str = "1.31.1") -> str:
    """Write the engine as a module, and return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "onnxruntime.py").write_text(ENGINE.format(version=version).replace("\\\\n", "\\n"))
    return str(folder)


class Hasty(PythonAgent):
    """The agent, that learns what is usual in no time."""

    def _options(self, digest: str) -> Mapping[str, Any]:
        return {**super()._options(digest), "learning_s": 0.02}


def agent(folder: Path, *, hang_s: float = 60.0, cache_bytes: int = 2**26) -> PythonAgent:
    """Return the agent with all that it keeps below `folder`."""
    return Hasty((sys.executable,), str(folder / "cache"), cache_bytes, hang_s, lock=str(folder / "lock"))


def device(boards: Boards, **options: Any) -> MeasuredDevice:
    """Return ONNX Runtime on boards."""
    return MeasuredDevice(
        BoardRuntime(OrtHere(OrtOptions(**options)), boards), BoardTransport(boards), in_context
    )


def board_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the device that is ONNX Runtime on this machine, as a board behind what stands in for ssh."""
    monkeypatch.setenv(PROGRAM, stand_in(folder))
    boards_of.cache_clear()
    return f"ssh:pi@board/ort:python={sys.executable},folder={folder / 'cache'}"


def stand_in(folder: Path) -> str:
    """Write a program that does what ssh would on a host that is this machine, and return its command."""
    script = folder / "ssh"
    script.write_text('#!/bin/sh\nfor command; do :; done\nexec sh -c "$command"\n')
    script.chmod(0o700)
    return str(script)
