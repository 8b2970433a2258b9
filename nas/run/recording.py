"""What a command writes down of itself in a run folder, taken back where the command is refused."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from hw_profiles.errors import TrilobitError
from hw_profiles.files import entries_below, write_atomic

RECORDED = ("run.toml", "env.json")
STATE = "state.json"  # changes where a stage has ended


@contextlib.contextmanager
def taken_back_if_refused(folder: Path) -> Iterator[None]:
    """Restore `run.toml` and `env.json`, byte for byte, where the block is refused before any
    stage has ended: what could not be done is no configuration. Of a folder that held no run before, empty
    folders in it go too.
    """
    contents, state = _contents(folder), _bytes(folder / STATE)
    try:
        yield
    except (TrilobitError, OSError):
        if _bytes(folder / STATE) == state:
            with contextlib.suppress(OSError):  # of a full disk, say; the refusal is what counts
                _put_back(folder, contents)
        raise


def _contents(folder: Path) -> Mapping[str, bytes | None]:
    return {name: _bytes(folder / name) for name in RECORDED}


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _put_back(folder: Path, contents: Mapping[str, bytes | None]) -> None:
    for name, content in contents.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)
        elif _bytes(folder / name) != content:
            write_atomic(folder / name, content)
    if contents["run.toml"] is None:
        for path in sorted(entries_below(folder), reverse=True):
            with contextlib.suppress(OSError):  # not a folder, or not empty
                path.rmdir()
