"""One writer for a run folder at a time: a file that says who it is, and shows that it lives."""

import fcntl
import getpass
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from hw_profiles.documents import read_document, write_document
from hw_profiles.errors import TrilobitError

FILE = "lock.json"
BEAT_S = 10.0  # between two signs of life
LOST_S = 120.0  # without one, after which the owner on another machine counts as dead; clocks differ


@dataclass(frozen=True)
class Lock:
    """Who writes to a run folder.

    Attributes:
        owner, host, pid: user, machine and process.
        began_s: when the process began, seconds since 1970: another process may get its number later.
        processes: which numbering of processes it is in, a container's or the machine's; empty if unknown.
        since: when it took the lock, for people.
    """

    SCHEMA: ClassVar[str] = "lock/1"
    REMEDY: ClassVar[str] = "delete it if nothing runs in this folder"

    owner: str
    host: str
    pid: int
    began_s: float
    processes: str
    since: str

    @property
    def is_local(self) -> bool:
        """Whether its process can be seen from here."""
        return (self.host, self.processes) == (platform.node(), _processes())

    @property
    def lives(self) -> bool:
        """Whether its process, which is on this machine, is still there."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.began_s) < 2  # the clock may be set in between
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def __str__(self) -> str:
        return f"{self.owner} on {self.host} (process {self.pid}) since {self.since}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process alone; it is made if need be, and removed if nothing was written to
    it. The lock of an owner that died is taken over.

    Raises:
        TrilobitError: another process writes to it.
    """
    made = _make(folder)
    path, own = folder / FILE, _own()
    try:
        _take(path, own)
        done = threading.Event()
        beating = threading.Thread(target=_beat, args=(path, own, done), daemon=True)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            with _alone(folder):
                if _read(path) == own:
                    path.unlink(missing_ok=True)
    finally:
        for parent in made:
            with suppress(OSError):  # something was written to it
                parent.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder; return those that were not there, the innermost first."""
    missing = []
    for parent in (folder, *folder.parents):
        if parent.exists():
            break
        missing.append(parent)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _own() -> Lock:
    process = psutil.Process()
    return Lock(
        owner=_user(),
        host=platform.node(),
        pid=process.pid,
        began_s=process.create_time(),
        processes=_processes(),
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return f"user {os.getuid()}"


def _processes() -> str:
    """Return which numbering of processes this one is in: two containers may share a host's name."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _take(path: Path, own: Lock) -> None:
    with _alone(path.parent):
        if path.exists() and not _is_abandoned(path):
            other = _read(path)
            if other == own:
                raise TrilobitError(f"{path.parent}: this process writes to it already")
            raise TrilobitError(
                f"{path.parent}: in use by {other or 'another process'}; wait for it, end it there, or write "
                f"to another folder with -o; if it is gone, delete {path}"
            )
        write_document(path, own)


def _is_abandoned(path: Path) -> bool:
    """Return whether the owner died: its process on this machine is gone, or nothing was heard of another
    machine's for long.
    """
    other = _read(path)
    if other is not None and other.is_local:
        return not other.lives
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > LOST_S
    return True


def _read(path: Path) -> Lock | None:
    """Return who has the lock; None where there is none, or it cannot be read."""
    try:
        return read_document(path, Lock)
    except TrilobitError:
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Look at the lock and change it as one step; where a file system cannot say so, without that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _beat(path: Path, own: Lock, done: threading.Event) -> None:
    """Show that this process lives; stop it when another has taken its place, as after a long sleep."""
    while not done.wait(BEAT_S):
        with suppress(OSError):  # the next beat may get through
            other = _read(path)
            if other is not None and other != own:
                print(f"nas: {path.parent}: taken over by {other}, so this process stops", file=sys.stderr)
                signal.pthread_kill(threading.main_thread().ident or 0, _ending())  # wakes a sleep, too
                return
            os.utime(path)


def _ending() -> signal.Signals:
    """Return the signal that ends this process: what a shell starts in the background ignores SIGINT."""
    return signal.SIGTERM if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else signal.SIGINT
