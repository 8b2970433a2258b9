"""The agent in C for tests: started here, with libraries of a few lines."""

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("tvm_ffi")

from hw_profiles.runtimes.transports.agent_client import AgentClient, sha256_of
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.tvm_cpu.agent_program import compiled

STRICT = ("-Wall", "-Wextra", "-Werror", "-Wno-format-truncation", "-O1")
HANG_S = 120.0
SIGNATURE = {
    "inputs": [{"name": "image", "shape": [None, 4], "dtype": "float32"}],
    "outputs": [{"name": "output", "shape": [None, 4], "dtype": "float32"}],
    "layers": ["double", "double"],
}
DOUBLE = "for (int i = 0; i < 4; ++i) output[i] = 2 * input[i]; return 0;"
CRASH = "(void)input, (void)output; __builtin_trap();"
ENDLESS = '(void)input, (void)output; for (;;) __asm__ volatile("");'
CODE = "(void)output; return input[0] == 7 ? 0 : 3;"
FOREIGN = "output[0] = sinhf(input[0]); return 0;"


@dataclass(frozen=True)
class Here:
    """This machine as a board.

    Attributes:
        home: its user's folder.
    """

    home: Path
    label: str = "here"

    @property
    def name(self) -> str:
        return f"pipe:{self.label}"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        pipe, environment = subprocess.PIPE, {**os.environ, "HOME": str(self.home)}
        shell = ["sh", "-c", f"exec {shlex.join(command)}"]
        return subprocess.Popen(
            shell, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, env=environment
        )

    def failure(self, returncode: int, said: str) -> BoardLost:
        return BoardLost(f"{self.name} was lost (exit code {returncode}: {said.strip()[-100:]})")


def program() -> bytes:
    """Return the agent, compiled with all warnings as errors."""
    return compiled("cc", *STRICT)


def started(agent: Path, folder: Path, **options: object) -> AgentClient:
    """Return a conversation with an agent that keeps everything below `folder`."""
    usual = {
        "folder": str(folder / "files"),
        "lock": str(folder / "lock"),
        "cache_bytes": 2**26,
        "learning_s": 0.02,
    }
    board = Here(folder)
    process = board.start([str(agent), json.dumps(usual | options)])
    return AgentClient(board, process, hang_s=HANG_S, agent=sha256_of(agent.read_bytes()))


def library(folder: Path, body: str, signature: object = SIGNATURE) -> bytes:
    """Return a library whose function has this body."""
    text = json.dumps(json.dumps(signature))
    source = f"""
    float sinhf(float);
    __attribute__((used)) const char trilobit_signature[] = {text};
    int trilobit_run(const float* input, float* output) {{ {body} }}
    """
    path = folder / f"{sha256_of(body.encode())[:12]}.so"
    (folder / "library.c").write_text(source)
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-nostdlib", str(folder / "library.c"), "-o", str(path)], check=True
    )
    return path.read_bytes()


def asked(content: bytes, example: str | None = None) -> dict[str, object]:
    """Return a library as a request names it."""
    engine = {"name": "library", "options": {"version": "1"}}
    return {"sha256": sha256_of(content), "engine": engine, "exact_sums": False, "example": example}
