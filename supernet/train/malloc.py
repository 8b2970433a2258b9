"""Keeps freed memory in the process while a network trains."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back; whether it could be told.

    Every step frees and asks for the same activations of some 50 MB. By default each goes back to the kernel
    and comes again page by page, zeroed: an eighth to two fifths of the time of a step on a CPU
    (two runs, one thread, 19 MMACs).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
