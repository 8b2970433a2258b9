"""What killed processes leave behind is removed; what others are writing is not."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from hw_profiles.files import entries_below, remove_abandoned, write_atomic

KILLED = """
import os, sys
from pathlib import Path
import hw_profiles.files as files
files.os.replace = lambda *names: os._exit(9)  # as if killed between the last byte and the new name
files.write_atomic(Path(sys.argv[1]) / "sub" / "data.json", "half")
"""


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    write_atomic(tmp_path / "sub" / "data.json", "whole")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.rglob("*.part"))) == 1
    remove_abandoned(tmp_path)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["data.json"]
    assert (tmp_path / "sub" / "data.json").read_text() == "whole"


def test_what_others_are_writing_stays(tmp_path: Path) -> None:
    writers = (f"{os.getpid()}@{platform.node()}", "999999999@elsewhere.example")
    paths = [tmp_path / f".data.json.x1.{writer}.part" for writer in writers]
    for path in paths:
        path.write_text("half")
    remove_abandoned(tmp_path)
    assert all(path.exists() for path in paths)


def test_folders_may_lie_in_each_other_deeper_than_python_recurses(tmp_path: Path) -> None:
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1_200):
            os.mkdir("d")
            os.chdir("d")
        Path("last").touch()
    finally:
        os.chdir(before)
    below = sorted(entries_below(tmp_path), reverse=True)
    assert len(below) == 1_201
    for path in below:  # pytest's own clean-up recurses
        path.rmdir() if path.is_dir() else path.unlink()
