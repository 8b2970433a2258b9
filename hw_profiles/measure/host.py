"""This machine: its processor, and running on one core of it."""

import contextlib
import os
import platform
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# flag of Linux's /proc/cpuinfo -> name of the instruction set that decides what int8 costs, the best first
INSTRUCTION_SETS: Mapping[str, str] = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512bw": "AVX512 without VNNI",
    "avx2": "AVX2",
    "sse4_1": "SSE4.1",
    "i8mm": "NEON i8mm",
    "asimddp": "NEON dotprod",
    "asimd": "NEON",
}


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Run on one core only, where the platform can pin; None leaves the scheduler free."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def load_average() -> float | None:
    """Return how many tasks ran or wanted to over the last minute; None where the system cannot tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def cpu_model() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def instruction_set(cpuinfo: Path = CPUINFO) -> str:
    """Return the name of the processor's best instruction set for int8 products, such as `AVX512-VNNI`.

    It is for people who read a figure: what a device computes is found by running it, never from here.
    `unknown` where the system does not list its processor's flags.
    """
    return best_instruction_set(cpu_flags(cpuinfo))


def best_instruction_set(flags: Collection[str]) -> str:
    """Return the same of a processor with these flags."""
    return next((name for flag, name in INSTRUCTION_SETS.items() if flag in flags), "unknown")


def cpu_flags(cpuinfo: Path = CPUINFO) -> set[str]:
    """Return the processor's flags as the system lists them; none where it does not."""
    flags: set[str] = set()
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            name, _, listed = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags.update(listed.split())
    return flags
