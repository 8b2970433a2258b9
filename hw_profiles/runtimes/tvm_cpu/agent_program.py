"""The agent for boards without Python, compiled for one kind of board and kept."""

import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tvm_ffi import libinfo

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.runtimes.transports import native
from hw_profiles.runtimes.tvm_cpu.compile import LINK_SECONDS
from hw_profiles.runtimes.tvm_cpu.runtime import default_database
from hw_profiles.runtimes.tvm_cpu.target import board_target

# the matrix product that reveals interference is vectorised; a static program needs nothing of the board
OPTIONS = ("-std=gnu11", "-O3", "-static", "-D_GNU_SOURCE")


@cache
def agent_program(machine: str) -> bytes:
    """Return the program for an instruction set, as `uname -m` calls it.

    Raises:
        TrilobitError: there is no C compiler for it, no static C library, or no agent.
    """
    compiler = board_target(machine, ()).compiler()
    sources = sorted(Path(native.__file__).parent.glob("*.[ch]"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources))
    digest.update(" ".join((compiler, *OPTIONS, platform.machine())).encode())
    kept = default_database().with_name("agents") / f"{machine}-{digest.hexdigest()[:24]}"
    if not kept.exists():
        write_atomic(kept, compiled(compiler))
    return kept.read_bytes()


def compiled(compiler: str, *options: str) -> bytes:
    """Return the program, compiled with further options.

    Raises:
        TrilobitError: the compiler fails.
    """
    sources = sorted(Path(native.__file__).parent.glob("*.c"))
    headers = sorted({libinfo.find_include_path(), libinfo.find_dlpack_include_path()})
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "agent"
        command = [compiler, *OPTIONS, *options, *(f"-I{header}" for header in headers), *map(str, sources)]
        done = subprocess.run(
            [*command, "-lm", "-s", "-o", str(program)],
            capture_output=True,
            text=True,
            timeout=LINK_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            reason = next((line for line in lines if "error" in line or "cannot find" in line), lines[-1])
            raise TrilobitError(
                f"{compiler} cannot make the agent for boards: {reason}; it needs the C library for static "
                "programs too, on Debian with: apt-get install libc6-dev, or libc6-dev-arm64-cross"
            )
        return program.read_bytes()
