"""Files on the board by the SHA-256 of their content, in a folder with a size limit."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable
from typing import Any

from hw_profiles.runtimes.transports.agent.messages import CHUNK, AgentError

HASH = re.compile(r"[0-9a-f]{64}")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PART = ".part"


def usual_folder() -> str:
    """Return where files are kept where nobody said otherwise: the user's cache folder, or where none can be
    written one of the user's own below the system's temporary folder.
    """
    home = os.path.expanduser("~")
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    if os.path.isdir(home) and os.access(caches if os.path.isdir(caches) else home, os.W_OK):
        return os.path.join(caches, "trilobit", "board")
    return os.path.join(tempfile.gettempdir(), "trilobit-%d" % os.getuid())


class Store:
    """The folder.

    Args:
        folder: of this user alone; made where it is not there.
        limit_bytes: of all files together.

    Raises:
        AgentError: it cannot be made, or is somebody else's.
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self.folder, self._limit = folder, limit_bytes
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            owner = os.stat(folder)
        except OSError as error:
            raise AgentError(_kind(error), f"cannot make {folder} ({error.strerror})") from None
        if owner.st_uid != os.getuid():
            raise AgentError("request", f"{folder} belongs to somebody else")

    def path(self, sha256: Any) -> str:
        """Return where a file is kept.

        Raises:
            AgentError: that is no hash.
        """
        if not isinstance(sha256, str) or not HASH.fullmatch(sha256):
            raise AgentError("request", "no SHA-256: %.80r" % (sha256,))
        return os.path.join(self.folder, sha256)

    def has(self, sha256: Any) -> bool:
        """Return whether a file is there, which will be the last to go from now on."""
        try:
            os.utime(self.path(sha256))
        except OSError:
            return False
        return True

    def content(self, sha256: Any) -> bytes:
        """Return what a file holds.

        Raises:
            AgentError: it is not there, or no longer what it was.
        """
        path = self.path(sha256)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            raise AgentError("missing", f"the file {sha256[:12]} is not there") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            os.unlink(path)
            raise AgentError("missing", f"the file {sha256[:12]} was changed")
        return content

    def receive(self, sha256: Any, size: int, read: Callable[[int], bytes]) -> None:
        """Keep a file that `read(most)` gives in parts.

        Raises:
            AgentError: there is no room for it, or it is not what its hash says; all of it was read.
            EOFError: there is no more to read.
        """
        path, part = self.path(sha256), self.path(sha256) + ".%d%s" % (os.getpid(), PART)
        left, digest, problem = size, hashlib.sha256(), ""
        try:
            with contextlib.ExitStack() as stack:
                file: Any = None
                try:
                    self._make_room(size)
                    file = stack.enter_context(open(part, "wb", buffering=0))
                except OSError as error:
                    problem = self._problem(error, size)
                while left:
                    some = read(min(left, CHUNK))
                    if not some:
                        raise EOFError
                    left -= len(some)
                    digest.update(some)
                    problem = problem or self._write(file, some, size)
            if problem:
                raise AgentError("disk", problem)
            if digest.hexdigest() != sha256:
                raise AgentError("request", f"what came is not the file {sha256[:12]}")
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)

    def _write(self, file: Any, some: bytes, size: int) -> str:
        """Write a part of a file; where that cannot be, return why."""
        view = memoryview(some)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            return self._problem(error, size)
        return ""

    def _problem(self, error: OSError, size: int) -> str:
        return f"no room for {max(1, size // 1000):,} KB in {self.folder} ({error.strerror})"

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest until there is room.

        Raises:
            OSError: the file is larger than all files together may be.
        """
        if size > self._limit:
            raise OSError(errno.EFBIG, "more than the %d MB that files may take there" % (self._limit / 1e6))
        listed = []
        for name in os.listdir(self.folder):
            if HASH.match(name):
                with contextlib.suppress(OSError):
                    path = os.path.join(self.folder, name)
                    about = os.lstat(path)
                    if stat.S_ISREG(about.st_mode):
                        listed.append((about.st_mtime_ns, about.st_size, path))
        total = sum(each for _, each, _ in listed) + size
        for _, each, path in sorted(listed):
            if total <= self._limit:
                return
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= each


def _kind(error: OSError) -> str:
    return "disk" if error.errno in FULL else "request"
