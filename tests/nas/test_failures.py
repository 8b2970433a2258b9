"""What ends a command is one line that says what to do, which depends on what failed."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from nas.cli.failures import in_one_line, is_expected


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "mend its permissions"),
        (errno.EROFS, "mend its permissions"),
        (errno.ENOTDIR, "give another path"),
        (errno.ENOENT, "see that it is written right"),
        (errno.ENAMETOOLONG, "give a shorter path"),
        (errno.EMFILE, "close other programs"),
        (errno.EIO, "the disk fails"),
        (errno.EBUSY, "the same command continues"),
    ],
)
def test_the_remedy_is_that_of_what_failed(number: int, remedy: str) -> None:
    error = OSError(number, os.strerror(number), "runs/x/front.json")
    line = in_one_line(error)
    assert is_expected(error)
    assert line.startswith("runs/x/front.json: ")
    assert remedy in line
    assert ("make room" in line) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_a_file_that_may_not_be_read_is_no_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.onnx"
    path.touch()
    monkeypatch.setattr(os, "access", lambda where, mode: mode != os.R_OK)  # root may read everything
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    assert in_one_line(error) == f"{path}: permission denied: let it be read, or name a file that may be"
    path.unlink()
    assert "write to another folder with -o" in in_one_line(error)


def test_no_more_memory_is_one_line() -> None:
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, np.uint8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60, dtype=torch.uint8)
    for error in (of_numpy.value, of_torch.value):
        assert is_expected(error)
        assert in_one_line(error).startswith("out of memory; ")
        assert "\n" not in in_one_line(error)


def test_bugs_stay_bugs() -> None:
    assert not is_expected(RuntimeError("shapes differ"))
    assert not is_expected(KeyError("stages"))
    assert is_expected(TrilobitError("a, b or c"))


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_heed_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "it", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "it").stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_folder_is_synchronised_after_the_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    replace, fsync = os.replace, os.fsync

    def kind(handle: int) -> str:
        return "folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"

    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append(kind(handle)), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("name"), replace(*names))[1])
    write_atomic(tmp_path / "it", "text")
    assert steps == ["file", "name", "folder"]
