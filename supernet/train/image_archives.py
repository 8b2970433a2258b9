"""Images in class folders, read from a folder, a tar or a zip file. Nothing is ever extracted to disk.

The layout is `[anything/]PART/CLASS/NAME.{jpg,jpeg,png}` with the parts `train` and, optionally, `test` and
`val`. A lone `val` is the test part, as in ImageNet.
"""

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from hw_profiles.errors import TrilobitError
from supernet.train.images import Images, Pixels, Source

PARTS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")
LAYOUT = "expected [anything/]train/CLASS/*.{jpg,jpeg,png} and optionally test/CLASS/*"

_GREY_MODES = ("1", "L", "LA")
_UNREADABLE_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError)
_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

Key = tuple[str, str, str]  # part, class, path


def read_class_folders(path: Path, *, size: int | None = None) -> Source:
    """All images in `path`, a folder or a .tar, .tar.gz, .tar.xz or .zip file, by class and file name.

    One channel where every image is grey, else RGB. Images of another shape than `size` x `size` (by default
    than the first image met) are scaled to cover it, keeping their proportions, and cropped in the middle.

    Raises:
        TrilobitError: nothing there, not an archive, no train part, a broken image.
    """
    shape = (size, size) if size else None
    decoded: dict[Key, Pixels] = {}
    for key, data in _files(path):
        decoded[key] = _decode(data, shape, f"{path}: {key[2]}")
        shape = shape or (decoded[key].shape[0], decoded[key].shape[1])
    if not decoded:
        raise TrilobitError(f"{path}: no images in class folders; {LAYOUT}")
    found = {part for part, _, _ in decoded}
    if "train" not in found:
        raise TrilobitError(f"{path}: no train part, only {', '.join(sorted(found))}; {LAYOUT}")
    return _assemble(path, decoded)


def _assemble(path: Path, decoded: dict[Key, Pixels]) -> Source:
    classes = tuple(sorted({name for part, name, _ in decoded if part == "train"}))
    strange = sorted({name for _, name, _ in decoded} - set(classes))
    if strange:
        raise TrilobitError(
            f"{path}: no training images of {', '.join(strange)}; add some or remove these classes"
        )
    label = {name: index for index, name in enumerate(classes)}
    channels = max(image.shape[2] for image in decoded.values())
    names = {**dict.fromkeys(PARTS, "test"), "train": "train"}
    if any(part == "test" for part, _, _ in decoded):
        names["val"] = "validation"
    parts = {}
    for part in PARTS:
        keys = sorted((key for key in decoded if key[0] == part), key=_order)
        if keys:
            height, width, _ = decoded[keys[0]].shape
            pixels = np.empty((len(keys), height, width, channels), np.uint8)
            for row, key in enumerate(keys):
                pixels[row] = decoded[key]  # a grey image among colour ones is repeated over the channels
            parts[names[part]] = Images(pixels, np.array([label[k[1]] for k in keys], np.int64))
    return Source(path.name.split(".")[0], classes, parts)


def _order(key: Key) -> tuple[str, str, str]:
    _, class_name, path = key
    return class_name, PurePosixPath(path).name, path


def _files(path: Path) -> Iterator[tuple[Key, bytes]]:
    if path.is_dir():
        return _folder_files(path)
    if not path.is_file():
        raise TrilobitError(f"{path}: no such file or folder; give one, or a .tar, .tar.gz, .tar.xz or .zip")
    return _archive_files(path)


def _folder_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    for file in sorted(path.rglob("*")):
        if (key := _key(file.relative_to(path).as_posix())) and file.is_file():
            yield key, file.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    """Members one after the other as they lie in the archive; broken archives become one-line errors."""
    reader = _zip_files if zipfile.is_zipfile(path) else _tar_files
    try:
        yield from reader(path)
    except _UNREADABLE_ARCHIVE as error:
        reason = str(error).replace("\n", " ")
        raise TrilobitError(
            f"{path}: not a whole .tar, .tar.gz, .tar.xz or .zip file ({reason}); fetch it again"
        ) from None


def _tar_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    with tarfile.open(path, "r|*") as archive:  # "|": one pass from front to back
        for member in archive:
            key = _key(member.name) if member.isreg() else None  # neither links nor devices
            if key and (file := archive.extractfile(member)):
                yield key, file.read()


def _zip_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if key := _key(member.filename):
                yield key, archive.read(member)


def _key(name: str) -> Key | None:
    """Part, class and path of an image file; None for all else, also for absolute paths and those with `..`.

    >>> _key("cifar10/train/cat/0001.jpg")
    ('train', 'cat', 'cifar10/train/cat/0001.jpg')
    >>> _key("../train/cat/0001.jpg")
    """
    path = PurePosixPath(name)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    if hidden or path.is_absolute() or ".." in path.parts or len(path.parts) < 3:
        return None
    part, class_name = path.parts[-3:-1]
    if part not in PARTS or path.suffix.lower() not in SUFFIXES:
        return None
    return part, class_name, str(path)


def _decode(data: bytes, shape: tuple[int, int] | None, name: str) -> Pixels:
    """(h, w, c) pixels, c = 1 for a grey image and 3 for every other."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bit grey; converting would clip it
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("L" if image.mode in _GREY_MODES else "RGB")
    except _BROKEN_IMAGE as error:
        raise TrilobitError(f"{name}: broken image ({str(error)[:80]}); mend or remove it") from None
    if shape and shape != (image.height, image.width):
        image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)
