"""Readers of images of classes, registered in `supernet.registry.SOURCES`.

`train` trains the supernet, `validation` scores candidates during the search, `test` is kept for the networks
that are shipped.
"""

import hashlib
import io
import re
from functools import cache as remembered
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.files import write_atomic
from supernet.data import cifar10
from supernet.data.image_archives import LARGEST_SIDE, MOST_SIZE, first_image_shape, read_class_folders
from supernet.data.images import Images, Source
from supernet.data.splits import three_parts
from supernet.registry import SOURCE_FORMS
from supernet.tasks.image_classification import ImageClassification

DIGITS_SIZE = 32


def read_digits(argument: str, *, seed: int, cache: Path | None) -> ImageClassification:
    """Return the 1,797 scans of handwritten digits that scikit-learn brings."""
    return _task(_read_digits(argument, cache), "digits", argument, seed)


def read_image_folder(argument: str, *, seed: int, cache: Path | None) -> ImageClassification:
    """Return the images of a folder, tar or zip of class folders."""
    return _task(_read_image_folder(argument, cache), "imagefolder", argument, seed)


def read_cifar10(argument: str, *, seed: int, cache: Path | None) -> ImageClassification:
    """Return CIFAR-10 from its published archive, or the images of any other folder or archive."""
    return _task(_read_cifar10(argument, cache), "cifar10", argument, seed)


def _task(read: Source, kind: str, argument: str, seed: int) -> ImageClassification:
    """Return what was read, split by `seed`.

    Raises:
        TrilobitError: one class only, or too few images of one.
    """
    source = f"{kind}:{argument}" if argument else kind
    if len(read.classes) < 2:
        raise TrilobitError(f"{source}: only one class, {read.classes[0]!r}; at least two are needed")
    parts = three_parts(read, source, seed)
    mean, std = _channel_statistics(parts["train"].pixels)
    return ImageClassification(
        read.name, read.classes, parts["train"], parts["validation"], parts["test"], mean, std
    )


def _channel_statistics(pixels: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per channel in 0..1, exact, from counts of the 256 values."""
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(pixels.shape[3]):
        share = np.bincount(pixels[..., channel].ravel(), minlength=256) / pixels[..., channel].size
        means.append(float(share @ values))
        deviation = np.sqrt(share @ (values - means[-1]) ** 2)
        deviations.append(max(float(deviation), 1 / 255))  # a constant channel must not divide by 0
    return tuple(means), tuple(deviations)


def _read_digits(argument: str, cache: Path | None) -> Source:
    if argument:
        raise TrilobitError(f"'digits' takes no argument, got {argument!r}; write just digits")
    return _scaled_digits()


@remembered
def _scaled_digits() -> Source:
    """Return all scans; what is split off is copied."""
    from sklearn.datasets import load_digits  # takes a second, and only this source needs it

    bunch = load_digits()
    scans = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 17 grey levels
    size = (DIGITS_SIZE, DIGITS_SIZE)
    scaled = [np.asarray(Image.fromarray(scan).resize(size, Image.Resampling.BICUBIC)) for scan in scans]
    classes = tuple(str(digit) for digit in bunch.target_names)
    images = Images(np.stack(scaled)[..., None], bunch.target.astype(np.int64))
    return Source("digits", classes, {"train": images})


def _read_image_folder(argument: str, cache: Path | None) -> Source:
    path_text, _, option = argument.partition("?")
    if not path_text:
        raise TrilobitError(f"imagefolder needs a path: {SOURCE_FORMS['imagefolder']}")
    path, size = Path(path_text), _size(option)
    if cache is None or not path.is_file():
        return read_class_folders(path, size=size)
    stat = path.stat()
    identity = repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns, size))
    kept = cache / f"images-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    source = _read_kept(kept)
    if source is None:
        source = read_class_folders(path, size=size)
        _keep(kept, source)
    return source


def _size(option: str) -> int | None:
    """Return the side in pixels that `size=N` asks for; None where nothing is asked for."""
    if not option:
        return None
    match = re.fullmatch(r"size=([1-9][0-9]{0,8})", option)
    if not match:
        raise TrilobitError(
            f"unknown option {shown(option)} of imagefolder; known: size=N in pixels, as in ?size=32"
        )
    if int(match[1]) > MOST_SIZE:
        raise TrilobitError(
            f"?size={match[1]}: every image would be scaled up to that; at most {MOST_SIZE}, and no space "
            "looks at more than 224 pixels"
        )
    return int(match[1])


def image_shape(source: str) -> tuple[int, int] | None:
    """Return the height and width that the images of `source` will have, by the first of them; None where
    the source knows them by itself.

    Raises:
        TrilobitError: nothing there, or not an archive of images.
    """
    kind, _, argument = source.partition(":")
    path_text, _, option = argument.partition("?")
    if kind != "imagefolder" or not path_text:
        return None
    size = _size(option)
    height, width = (size, size) if size else first_image_shape(Path(path_text))
    if size is None and max(height, width) > LARGEST_SIDE:
        return LARGEST_SIDE, LARGEST_SIDE
    return height, width


def _read_cifar10(argument: str, cache: Path | None) -> Source:
    if not argument:
        raise TrilobitError(
            f"cifar10 needs a folder that holds or receives the archive: {SOURCE_FORMS['cifar10']}"
        )
    path = Path(argument)
    if path.name == cifar10.PICKLED:
        raise TrilobitError(f"{path}: pickled, so never read; give {cifar10.ARCHIVE} from {cifar10.URL}")
    other_archive = path.is_file() and path.name != cifar10.ARCHIVE
    folder_of_images = (path / "train").is_dir() or any(path.glob("*/train"))
    if other_archive or folder_of_images:
        return _read_image_folder(argument, cache)
    return cifar10.read_cifar10(path)


def _keep(path: Path, source: Source) -> None:
    arrays: dict[str, NDArray[Any]] = {"name": np.array(source.name), "classes": np.array(source.classes)}
    for part, images in source.parts.items():
        arrays |= {f"{part}.pixels": images.pixels, f"{part}.labels": images.labels}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def _read_kept(path: Path) -> Source | None:
    """Return a decoded archive, or None where it is absent or damaged."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            parts = {
                part: Images(file[f"{part}.pixels"], file[f"{part}.labels"])
                for part in ("train", "validation", "test")
                if f"{part}.labels" in file
            }
            classes = tuple(map(str, file["classes"]))
            most = max(int(images.labels.max(initial=0)) for images in parts.values())
            whole = "train" in parts and most < len(classes)
            return Source(str(file["name"]), classes, parts) if whole else None
    except MemoryError:
        raise
    except Exception:  # numpy's reader raises anything at all on what is damaged
        return None
