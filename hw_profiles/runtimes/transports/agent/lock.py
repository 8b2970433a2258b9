"""One measurement on a board at a time, whoever makes it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

POLL_S, TELL_S = 0.1, 2.0
MOST = 4096  # bytes that say who it is


def usual_lock(folder: str) -> str:
    """Return the file that all users of a board lock: where every one of them can, else in `folder`."""
    shared = "/tmp"
    return os.path.join(shared if os.access(shared, os.W_OK) else folder, "trilobit-board.lock")


@contextlib.contextmanager
def held(path: str, who: dict[str, Any], wait: Callable[[Any], None]) -> Iterator[None]:
    """Hold the board's lock; the system gives it back however this process ends.

    Args:
        who: holds it, for others to read.
        wait: told now and then who else has it.
    """
    descriptor, acquired = _opened(path), False
    try:
        told = 0.0
        while not _locked(descriptor):
            if time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                wait(_holder(descriptor))
            time.sleep(POLL_S)
        acquired = True
        _write(descriptor, dict(who, since=time.strftime("%Y-%m-%d %H:%M:%S")))
        yield
    finally:
        with contextlib.suppress(OSError):
            if acquired:  # else it says who has it
                os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _opened(path: str) -> int:
    flags = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
        os.fchmod(descriptor, 0o666)  # for whoever comes after us
        return descriptor
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> Any:
    try:
        return json.loads(os.pread(descriptor, MOST, 0).decode() or "{}")
    except ValueError:
        return {}


def _write(descriptor: int, who: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # somebody else's file, that can only be read
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(who).encode()[:MOST], 0)
