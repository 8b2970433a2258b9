"""Archives and images that are cut, encrypted, of another kind, or made to fill memory: one line each."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hw_profiles.errors import TrilobitError
from supernet.data import archives as reader
from supernet.data import image_archives
from supernet.data.image_archives import LARGEST_SIDE, MOST_SIZE
from supernet.tasks import image_sources as data
from supernet.tasks.image_sources import image_shape
from supernet.tasks.loading import load_images

N = 12


def picture(width: int = 6, height: int = 6, *, kind: str = "png") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def members(image: bytes | None = None) -> dict[str, bytes]:
    content = image or picture()
    return {f"train/{name}/{i}.png": content for name in ("ant", "bee") for i in range(N)}


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def refusal(path: Path, option: str = "") -> str:
    with pytest.raises(TrilobitError) as error:
        load_images(f"imagefolder:{path}{option}", seed=0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_tar_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", members()).read_bytes()
    end = whole.rstrip(b"\0")
    marked = -(-len(end) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + tarfile.BLOCKSIZE
    cut = tmp_path / "cut.tar"
    for length in range(tarfile.BLOCKSIZE, marked, 3 * tarfile.BLOCKSIZE // 2):
        cut.write_bytes(whole[:length])
        assert "not a whole .tar" in refusal(cut), length
    cut.write_bytes(whole[:marked])  # one of the two marks of the end is enough
    assert len(load_images(f"imagefolder:{cut}", seed=0).train.labels) > 0


def test_a_tar_with_one_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "it.tar", members())
    whole = bytearray(path.read_bytes())
    step = 2 * tarfile.BLOCKSIZE  # a header and one block of data
    whole[5 * step + 3] ^= 1
    path.write_bytes(whole)
    assert "cut or damaged at byte 5,120" in refusal(path)


def test_only_the_raster_formats_we_name_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n"
    Image.init()
    asked: list[object] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: asked.append(1))
    for content in (eps, picture(kind="gif"), picture(kind="bmp"), picture(kind="tiff")):
        path = packed(tmp_path / "it.zip", {**members(), "train/ant/x.png": content})
        assert "x.png: broken image (" in refusal(path)
    assert not asked
    path = packed(tmp_path / "it.zip", {**members(), "train/ant/x.png": picture(kind="jpeg")})
    load_images(f"imagefolder:{path}", seed=0)  # whatever it is named


def test_an_encrypted_zip_is_one_line(tmp_path: Path) -> None:
    path = packed(tmp_path / "it.zip", members())
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    assert "train/ant/0.png is encrypted; pack it without a password" in refusal(path)


def test_a_member_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 10_000)
    large = {**members(), "train/ant/x.png": np.random.default_rng(0).bytes(20_000)}
    (tmp_path / "data" / "train" / "ant").mkdir(parents=True)
    (tmp_path / "data" / "train" / "ant" / "x.png").write_bytes(large["train/ant/x.png"])
    archives = packed(tmp_path / "a.zip", large), tar(tmp_path / "b.tar.gz", large, "w:gz")
    for path in (*archives, tmp_path / "data"):
        assert "x.png: 20,000 bytes, and an image has at most 10,000" in refusal(path)


@pytest.mark.parametrize("name", ["train/ant/x", "notes.bin"])
def test_an_archive_made_to_fill_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 3 * 2**20)
    bomb = {name: bytes(3 * 2**20), **{f"{name}.{i}": bytes(3 * 2**20) for i in range(3)}}
    assert "times its" in refusal(tar(tmp_path / "b.tar.gz", {**bomb, **members()}, "w:gz"))


def test_an_image_of_too_many_pixels_is_one_line(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, "png")
    path = packed(tmp_path / "it.zip", {"train/ant/x.png": buffer.getvalue(), **members()})
    assert "9000 x 9000 pixels, and an image has at most 64,000,000" in refusal(path)
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "png")  # here Pillow itself warns
    path = packed(tmp_path / "it.zip", {"train/ant/x.png": buffer.getvalue(), **members()})
    assert "x.png: broken image ('Image size (100000000 pixels) exceeds limit" in refusal(path)


def test_more_images_than_memory_are_refused_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_archives, "_memory_bytes", lambda: 3 * 10 * 6 * 6 * 3)
    message = refusal(packed(tmp_path / "it.zip", members()))
    assert "the first 11 images of 6 x 6 pixels take" in message
    assert "?size=N" in message


def test_sizes_nobody_can_mean_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "it.zip", members())
    message = f"?size=9999: every image would be scaled up to that; at most {MOST_SIZE}"
    assert message in refusal(path, "?size=9999")
    for option in ("?size=0", "?size=-1", "?size=٣", "?size=1e3", "?size=" + "9" * 10_000):
        assert "known: size=N in pixels" in refusal(path, option)


def test_photographs_are_kept_as_large_as_any_space_looks_at(tmp_path: Path) -> None:
    path = packed(tmp_path / "it.zip", members(picture(400, 300)))
    kept = load_images(f"imagefolder:{path}", seed=0).train.pixels.shape[1:3]
    assert kept == image_shape(f"imagefolder:{path}") == (LARGEST_SIDE, LARGEST_SIDE)
    assert image_shape(f"imagefolder:{path}?size=48") == (48, 48)
    assert image_shape("digits") is None


def test_a_kept_decoded_archive_that_does_not_hold_together_is_decoded_again(tmp_path: Path) -> None:
    path, cache = packed(tmp_path / "it.zip", members()), tmp_path / "cache"
    fresh = load_images(f"imagefolder:{path}", seed=0, cache=cache)
    (kept,) = cache.iterdir()
    with np.load(kept) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["train.labels"] = changed["train.labels"] + 7
    with kept.open("wb") as file:
        np.savez(file, **changed)  # type: ignore[arg-type]
    assert data._read_kept(kept) is None
    assert load_images(f"imagefolder:{path}", seed=0, cache=cache).fingerprint == fresh.fingerprint


def test_size_channels_and_classes_are_told(tmp_path: Path) -> None:
    told = str(load_images(f"imagefolder:{packed(tmp_path / 'it.zip', members())}", seed=0))
    assert told.startswith("it: images of 6 x 6 pixels, 3 channels (RGB), 2 classes; 16 for training, ")
    assert "1 channel (grey), 10 classes" in str(load_images("digits", seed=0))
