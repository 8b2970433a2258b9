"""Samples of any kind with damage of any kind: read, or refused in one line. Nothing is ever unpickled."""

import io
import os
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from supernet.data.input_spec import InputSpec
from supernet.data.read_samples import read_samples
from tests.fuzz.mutations import Attempt, damaged_bytes, require_sound, try_out
from tests.fuzz.test_archive_damage import as_tar, as_zip, pictures

FEW, COUNT = 25, 1_000
SPEC = InputSpec("x", ("n", 3, "h", "w"), "float32")


def array_file(*, packed: bool, kind: str) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(0).normal(size=(9, 3, 4, 5)).astype(np.float32)
    if kind == "npy":
        np.save(buffer, values)
    else:
        (np.savez_compressed if packed else np.savez)(buffer, x=values, labels=np.arange(9) % 3)
    return buffer.getvalue()


SOURCES = {
    "it.npy": lambda: array_file(packed=False, kind="npy"),
    "it.npz": lambda: array_file(packed=False, kind="npz"),
    "packed.npz": lambda: array_file(packed=True, kind="npz"),
    "it.tar.xz": lambda: as_tar("w:xz"),
    "it.zip": lambda: as_zip("png", 0),
}


def attempts(path: Path, content: bytes, count: int) -> Iterator[Attempt]:
    for mutation in damaged_bytes(content, count=count, rng=np.random.default_rng(17)):
        path.write_bytes(mutation.data)
        yield try_out(mutation.how, lambda: read_samples(str(path), [SPEC]))


def test_some_damage_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    for name, make in SOURCES.items():
        require_sound(attempts(tmp_path / name, make(), FEW))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_any_damage_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    require_sound(attempts(tmp_path / name, SOURCES[name](), COUNT))


def test_damaged_images_are_counted(tmp_path: Path) -> None:
    whole = pictures("png")
    for copy in range(4):
        for name, content in whole.items():
            path = tmp_path / f"{copy}" / Path(name).name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    path.write_bytes(content[:40])
    samples = read_samples(str(tmp_path), [SPEC], labels="none")
    assert len(samples) == 31
    assert "1 unreadable" in samples.origin


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    hostile = np.array([Hostile(tmp_path / "made")], object)
    np.savez(tmp_path / "a.npz", x=hostile)
    np.save(tmp_path / "b.npy", hostile)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Hostile(tmp_path / "made")))
    tried = [
        try_out(name, partial(read_samples, str(tmp_path / name), [SPEC]))
        for name in ("a.npz", "b.npy", "c.npy")
    ]
    assert require_sound(tried) == {"worked": 0, "refused": 3}
    assert "never unpickled" in tried[0].said
    assert not (tmp_path / "made").exists()
