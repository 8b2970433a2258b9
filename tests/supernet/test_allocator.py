"""Freed memory stays in the process: the second round of large allocations asks the kernel for nothing."""

import platform
import subprocess
import sys
import textwrap

import pytest

from supernet.train import malloc as allocator
from supernet.train.malloc import keep_freed_memory

FAULTS = textwrap.dedent("""
    import ctypes, resource, sys
    from supernet.train.malloc import keep_freed_memory

    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def touch(size=64 << 20):
        memory = libc.malloc(size)
        libc.memset(memory, 1, size)
        libc.free(memory)

    if sys.argv[1] == "keep":
        assert keep_freed_memory()
    touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        touch()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
""")


def faults(how: str) -> int:
    """Pages that the kernel gave for five rounds of 64 MB, after a first one."""
    run = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again() -> None:
    assert 4 * faults("keep") < faults("leave")  # how many depends on the size of a page


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
