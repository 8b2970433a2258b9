"""What ends a command, in one line: bad input, the file system, memory, a library that is not installed."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from hw_profiles.engines import missing_engine
from hw_profiles.errors import TrilobitError

# what a person can do about it, by error number; nothing half-written is ever left
_REMEDIES: Mapping[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or write to another folder with -o"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "mend its permissions, or write to another folder with -o"
    ),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "give another path"),
    errno.ENOENT: "see that it is written right",
    errno.ENAMETOOLONG: "give a shorter path",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "close other programs, or raise `ulimit -n`"),
    errno.EIO: "the disk fails: copy what is there to another one",
}
_OTHER = "the same command continues where this one stopped"
_ALLOCATION = re.compile(
    r"can't allocate memory|CUDA out of memory|bad_?alloc|Failed to allocate memory", re.I
)


def is_expected(error: BaseException) -> bool:
    """Return whether an exception is no bug: bad input, the file system, no more memory, or a library
    that is not installed."""
    if isinstance(error, ModuleNotFoundError):
        return bool(missing_engine(error))
    return isinstance(error, TrilobitError | OSError | MemoryError) or (
        isinstance(error, RuntimeError) and _ALLOCATION.search(str(error)) is not None
    )


def in_one_line(error: BaseException) -> str:
    """Return what an expected exception means and what to do next."""
    if isinstance(error, TrilobitError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_engine(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        if _unreadable(error):
            return f"{where}{error.strerror.lower()}: let it be read, or name a file that may be"
        remedy = _REMEDIES.get(error.errno or 0, _OTHER)
        return f"{where}{error.strerror.lower()}; nothing half-written was left: {remedy}"
    if isinstance(error, OSError):
        return str(error)
    return (
        "out of memory; free some, or lower --images, --batch or the batch size of training in the "
        f"configuration; {_OTHER}"
    )


def _unreadable(error: OSError) -> bool:
    """Return whether it is a file that is there and may not be read: no other folder would mend that."""
    denied = error.errno in (errno.EACCES, errno.EPERM) and isinstance(error.filename, str | Path)
    return denied and Path(error.filename).is_file() and not os.access(error.filename, os.R_OK)
