"""Images in class folders, read from a folder, a tar or a zip file.

The layout is `[anything/]PART/CLASS/NAME.{jpg,jpeg,png}` with the parts `train` and, optionally, `test` and
`val`. A lone `val` is the test part, as in ImageNet.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from hw_profiles.errors import TrilobitError
from supernet.data.archives import is_plain, read_files
from supernet.data.image_files import SUFFIXES, decode_image, image_size
from supernet.data.images import Images, Pixels, Source

PARTS = ("train", "val", "test")
LAYOUT = "expected [anything/]train/CLASS/*.{jpg,jpeg,png} and optionally test/CLASS/*"

LARGEST_SIDE = 256  # that images are kept at unless a size is given: no space looks at more than 224 pixels
MOST_SIZE = 1_024  # that may be asked for

Key = tuple[str, str, str]  # part, class, path


def read_class_folders(path: Path, *, size: int | None = None) -> Source:
    """Return all images in `path`, a folder or a .tar, .tar.gz, .tar.xz or .zip file, by class and file name.

    One channel where every image is grey, else RGB. Images of another shape than `size` x `size` (by default
    than the first image met, or `LARGEST_SIDE` where that is larger) are scaled to cover it, keeping their
    proportions, and cropped in the middle.

    Raises:
        TrilobitError: nothing there, not an archive, no train part, a broken image, or more than fits into
            memory.
    """
    shape = (size, size) if size else None
    decoded: dict[Key, Pixels] = {}
    kept_bytes, most_bytes = 0, _memory_bytes() // 3  # all of them are copied once, and training needs some
    for key, data in _files(path):
        decoded[key] = _decode(data, shape, f"{path}: {key[2]}")
        shape = shape or (decoded[key].shape[0], decoded[key].shape[1])
        kept_bytes += decoded[key].nbytes
        if kept_bytes > most_bytes:
            raise TrilobitError(
                f"{path}: the first {len(decoded):,} images of {shape[1]} x {shape[0]} pixels take "
                f"{kept_bytes / 2**30:.1f} GiB, more than this machine's memory can hold; write a smaller "
                "?size=N, such as ?size=64"
            )
    if not decoded:
        raise TrilobitError(f"{path}: no images in class folders; {LAYOUT}")
    parts = {part for part, _, _ in decoded}
    if "train" not in parts:
        raise TrilobitError(f"{path}: no train part, only {', '.join(sorted(parts))}; {LAYOUT}")
    return _assemble(path, decoded)


def first_image_shape(path: Path) -> tuple[int, int]:
    """Return height and width of the first image, as its file has them.

    Raises:
        TrilobitError: as `read_class_folders`.
    """
    for key, data in _files(path):
        return image_size(data, f"{path}: {key[2]}")
    raise TrilobitError(f"{path}: no images in class folders; {LAYOUT}")


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
    for name, data in read_files(path, lambda name: _key(name) is not None):
        if key := _key(name):
            yield key, data


def _key(name: str) -> Key | None:
    """Return the part, class and path of an image file; None for all else, also for absolute paths and those
    with `..`.

    >>> _key("cifar10/train/cat/0001.jpg")
    ('train', 'cat', 'cifar10/train/cat/0001.jpg')
    >>> _key("../train/cat/0001.jpg")
    """
    path = PurePosixPath(name)
    if not is_plain(name) or len(path.parts) < 3:
        return None
    part, class_name = path.parts[-3:-1]
    if part not in PARTS or path.suffix.lower() not in SUFFIXES:
        return None
    return part, class_name, str(path)


def _decode(data: bytes, shape: tuple[int, int] | None, name: str) -> Pixels:
    """Return (h, w, c) pixels, c = 1 for a grey image and 3 for every other.

    Args:
        shape: to scale to; None keeps the image's own, up to `LARGEST_SIDE`.
    """
    image = decode_image(data, name)
    if shape is None and max(image.size) > LARGEST_SIDE:
        shape = (LARGEST_SIDE, LARGEST_SIDE)
    if shape and shape != (image.height, image.width):
        image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)
