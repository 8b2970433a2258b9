"""A network's shared library on the machine where it is used: whether it runs there, what it gives, how long
it takes. Needs no TVM.
"""

import ctypes
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.host import pinned
from hw_profiles.interleave import Pulse, interleaved, timed
from hw_profiles.measurement import Measurement, MeasurePlan

LIBRARY, ENTRY = "model.so", "trilobit_run"
ELF = b"\x7fELF"
MACHINES = {0x03: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64"}  # e_machine
_SAME = {"amd64": "x86_64", "arm64": "aarch64"}  # other names that systems give
TRIAL_S = 60.0
WAITING_S = 5.0  # for quiet windows, of one library
# in a process of its own: one that meets an instruction which it lacks is ended by the system
_TRIAL = f"""
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
image, logits = (ctypes.create_string_buffer(4 * int(count)) for count in sys.argv[2:])
sys.exit(library.{ENTRY}(image, logits) and 3)
"""


class OtherProcessorError(TrilobitError):
    """A library is for another processor than this machine's."""


def require_runnable(path: Path, shape: tuple[int, int, int], classes: int) -> None:
    """Refuse a library that this machine cannot run, before any of it is loaded here.

    Only for a file whose hash is that of its manifest: one image goes through it, in another process.

    Args:
        shape: (h, w, c) of its image.

    Raises:
        OtherProcessorError: it is for another kind of processor, or uses instructions that this one lacks.
        TrilobitError: it is no shared library of a network, or it fails.
    """
    made_for, here = machine_of(path), _SAME.get(platform.machine().lower(), platform.machine().lower())
    if made_for != here:
        raise OtherProcessorError(
            f"{path.name} is for {made_for}, this machine is {here}: run it on the one it is for"
        )
    counts = map(str, (np.prod(shape), classes))
    command = [sys.executable, "-c", _TRIAL, str(path.absolute()), *counts]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_S, check=False)
    except subprocess.TimeoutExpired:
        raise TrilobitError(f"{path}: gave no answer in {TRIAL_S:.0f} s; export it again") from None
    if done.returncode == -signal.SIGILL:
        raise OtherProcessorError(
            f"{path.name} uses instructions that this processor lacks: export one for it"
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise TrilobitError(f"{path}: does not run ({said[0]}); export it again")


def machine_of(path: Path) -> str:
    """The kind of processor that a shared library is for, as `uname -m` calls it.

    Raises:
        TrilobitError: it is no ELF file.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or not head.startswith(ELF):
        raise TrilobitError(f"{path}: no shared library (ELF); give one that `nas export --library` wrote")
    code = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return MACHINES.get(code, f"a processor of ELF machine {code}")


def run_library(path: Path, images: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """(n, classes) logits of normalised images (n, c, h, w), one after the other, on this machine.

    Raises:
        RuntimeError: a unit failed.
    """
    run = _entry(path)
    planes = np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.float32)
    logits = np.zeros((len(images), classes), np.float32)
    for image, row in zip(planes, logits, strict=True):
        if code := run(image.ctypes.data, row.ctypes.data):
            raise RuntimeError(f"{path.name}: code {code}")
    return logits


def prepared_library(path: Path, shape: tuple[int, int, int], classes: int) -> Callable[[], object]:
    """A function that runs the library once on a random image (h, w, c)."""
    run = _entry(path)
    image = np.random.default_rng(0).standard_normal(shape, np.float32)
    logits = np.zeros(classes, np.float32)
    return lambda: run(image.ctypes.data, logits.ctypes.data)


def library_latency(
    path: Path, shape: tuple[int, int, int], classes: int, plan: MeasurePlan | None = None
) -> Measurement:
    """Return seconds per image, measured as a profile is."""
    plan = plan or MeasurePlan(waiting_s=WAITING_S)
    run = timed(prepared_library(path, shape, classes), plan)
    with pinned(plan.core):
        [samples] = interleaved([[run]], plan, Pulse())
    return Measurement.of(samples)


def _entry(path: Path) -> Callable[[int, int], int]:
    run = getattr(ctypes.CDLL(str(path.absolute())), ENTRY)
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    found: Callable[[int, int], int] = run
    return found
