"""A network's shared library on the machine where it is used: whether it runs there, what it gives, how long
it takes. Needs no TVM.
"""

import ctypes
import platform
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import pinned
from hw_profiles.measure.interleave import ReferenceWorkload, interleaved, timed
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from nas.checks.confined import ConfinedError

LIBRARY, ENTRY = "model.so", "trilobit_run"
ELF = b"\x7fELF"
MACHINES = {0x03: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64"}  # e_machine
_SAME = {"amd64": "x86_64", "arm64": "aarch64"}  # other names that systems give
WAITING_S = 5.0  # for quiet windows, of one library


class OtherProcessorError(TrilobitError):
    """A library is for another processor than this machine's."""


def require_machine(path: Path) -> None:
    """Refuse a library for another kind of processor, by its header alone.

    Raises:
        OtherProcessorError: it is.
        TrilobitError: it is no shared library.
    """
    made_for, here = machine_of(path), _SAME.get(platform.machine().lower(), platform.machine().lower())
    if made_for != here:
        raise OtherProcessorError(
            f"{path.name} is for {made_for}, this machine is {here}: run it on the one it is for"
        )


def stopped(path: Path, error: Exception) -> TrilobitError:
    """Return what to say of a library that gave no answer in a process of its own."""
    if isinstance(error, ConfinedError) and error.ended_by == signal.SIGILL:
        return OtherProcessorError(
            f"{path.name} uses instructions that this processor lacks: export one for it"
        )
    return TrilobitError(f"{path}: does not run ({error}); export it again")


def machine_of(path: Path) -> str:
    """Return the kind of processor that a shared library is for, as `uname -m` calls it.

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
    """Return (n, classes) logits of normalised images (n, c, h, w), one after the other, on this machine.

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


def library_logits(
    request: Mapping[str, Any], images: NDArray[np.float32]
) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Return the seconds per image and the logits of the library at `path`: to be run confined."""
    start = time.perf_counter()
    logits = run_library(Path(request["path"]), images, request["classes"])
    return (time.perf_counter() - start) / len(images), {"logits": logits}


def library_time(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the latency of the library at `path`, as a `Measurement`: to be run confined."""
    shape, classes = tuple(request["shape"]), request["classes"]
    return asdict(library_latency(Path(request["path"]), shape, classes)), {}


def prepared_library(path: Path, shape: tuple[int, int, int], classes: int) -> Callable[[], object]:
    """Return a function that runs the library once on a random image (h, w, c)."""
    run = _entry(path)
    image = np.random.default_rng(0).standard_normal(shape, np.float32)
    logits = np.zeros(classes, np.float32)
    return lambda: run(image.ctypes.data, logits.ctypes.data)


def library_latency(
    path: Path, shape: tuple[int, int, int], classes: int, plan: MeasurePlan | None = None
) -> Measurement:
    """Return seconds per image, measured as a profile is."""
    plan = plan or MeasurePlan(waiting_s=WAITING_S)
    run = timed(prepared_library(path, shape, classes), plan.clock)
    with pinned(plan.core):
        [samples] = interleaved([[run]], plan, ReferenceWorkload())
    return Measurement.of(samples)


def _entry(path: Path) -> Callable[[int, int], int]:
    run = getattr(ctypes.CDLL(str(path.absolute())), ENTRY)
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    entry: Callable[[int, int], int] = run
    return entry
