"""Archives, images and checkpoints with damage of any kind: read, or refused in one line."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.tasks.loading import load_images
from supernet.train.checkpoint import Weights, load_checkpoint, load_weights, save_checkpoint, save_weights
from tests.fuzz.mutations import Attempt, damaged_bytes, require_sound, try_out

COUNT = 1_000


def pictures(kind: str) -> dict[str, bytes]:
    rng, files = np.random.default_rng(0), {}
    for i in range(8):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(buffer, kind)
        files[f"train/{'ab'[i % 2]}/{i}.png"] = buffer.getvalue()
    return files


def as_tar(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in pictures("png").items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def as_zip(kind: str, method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in pictures(kind).items():
            archive.writestr(name, content)
    return buffer.getvalue()


ARCHIVES = {
    "it.tar": lambda: as_tar("w"),
    "it.tar.gz": lambda: as_tar("w:gz"),
    "it.tar.xz": lambda: as_tar("w:xz"),
    "png.zip": lambda: as_zip("png", zipfile.ZIP_DEFLATED),
    "jpeg.zip": lambda: as_zip("jpeg", zipfile.ZIP_STORED),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    def attempts() -> Iterator[Attempt]:
        for mutation in damaged_bytes(ARCHIVES[name](), count=COUNT, rng=np.random.default_rng(31)):
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, lambda: load_images(f"imagefolder:{path}", seed=0))

    require_sound(attempts())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_damaged_image_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    files = pictures(kind)
    for name, content in files.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def attempts() -> Iterator[Attempt]:
        for mutation in damaged_bytes(content, count=COUNT, rng=np.random.default_rng(31)):
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, lambda: load_images(f"imagefolder:{tmp_path / 'data'}", seed=0))

    require_sound(attempts())


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_checkpoint_is_read_or_refused_in_one_line(tmp_path: Path, whole: bool) -> None:
    tensors = {"stem.weight": torch.ones(4, 1, 3, 3), "head.bias": torch.zeros(10)}
    path = tmp_path / "it.pt"
    if whole:
        save_checkpoint(path, {"space": "0", "model": tensors, "step": 1, "steps": 1, "name": "x"})
    else:
        save_weights(path, Weights(tensors, "x", ("a", "b"), "0", 0, {"seed": 0}))

    def use() -> None:
        load_weights(path)
        if whole:
            load_checkpoint(path, fingerprint="0")

    def attempts() -> Iterator[Attempt]:
        for mutation in damaged_bytes(path.read_bytes(), count=COUNT, rng=np.random.default_rng(31)):
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, use)

    require_sound(attempts())
