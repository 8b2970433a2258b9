"""Data for training and search: three disjoint parts, read from one source string.

`train` trains the supernet, `validation` scores candidates during the search, `test` is kept for the networks
that are shipped.
"""

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.files import write_atomic
from supernet.data import cifar10
from supernet.data.image_archives import LARGEST_SIDE, MOST_SIZE, first_image_shape, read_class_folders
from supernet.data.images import Images, Labels, Pixels, Source
from supernet.registry import SOURCES

__all__ = ["Dataset", "Images", "load_data", "normalised", "stratified_split", "to_batch", "to_tensor"]

SPLIT = (0.6, 0.2, 0.2)  # train, validation, test where the source has one part only
VALIDATION_SHARE = 0.1  # of the training part where the source has a test part: 5,000 of CIFAR-10's 50,000
DIGITS_SIZE = 32


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in three disjoint parts.

    Attributes:
        name: what to call it in reports.
        classes: class names; a label is an index into them.
        train, validation, test: the parts, all of one image size.
        mean, std: per channel, of the pixels of `train` scaled to 0..1.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return int(self.train.pixels.shape[3])

    def __str__(self) -> str:
        """What there is, in one line."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(images):,} for {name}" for name, images in parts.items())
        height, width = self.train.pixels.shape[1:3]
        colour = "grey" if self.channels == 1 else "RGB"
        return (
            f"{self.name}: images of {width} x {height} pixels, {self.channels} channel"
            f"{'' if self.channels == 1 else 's'} ({colour}), {len(self.classes)} classes; {counts}"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the pixels and labels of all parts, to notice that data or split have changed."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(repr(part.pixels.shape).encode())
            digest.update(np.ascontiguousarray(part.pixels).data)
            digest.update(np.ascontiguousarray(part.labels).data)
        return digest.hexdigest()[:16]


def load_data(source: str, *, seed: int, cache: Path | None = None) -> Dataset:
    """The data that `source` names, split by `seed`.

    Args:
        source: `digits` (1,797 real scans), `imagefolder:PATH[?size=N]` (a folder, tar or zip of class
            folders), or `cifar10:PATH` (the published binary archive, or the folder that holds or receives
            it; any other folder or archive of images is read like `imagefolder`).
        seed: decides which images go to which part.
        cache: folder in which decoded archives are kept; None decodes every time.

    Raises:
        TrilobitError: an unknown source, a missing or broken file, one class only, too few images per class.
    """
    kind, _, argument = source.partition(":")
    if kind not in _READERS:
        raise TrilobitError(f"unknown data source {source!r}; known: {', '.join(SOURCES.values())}")
    read = _READERS[kind](argument, cache)
    if len(read.classes) < 2:
        raise TrilobitError(f"{source}: only one class, {read.classes[0]!r}; at least two are needed")
    parts = _three_parts(read, source, seed)
    mean, std = _channel_statistics(parts["train"].pixels)
    return Dataset(read.name, read.classes, parts["train"], parts["validation"], parts["test"], mean, std)


def stratified_split(labels: Labels, shares: tuple[float, ...], *, seed: int) -> tuple[Labels, ...]:
    """Ascending disjoint row indices, one array per share, together all rows; every class is divided alike.

    Every part but the first gets the rounded share of each class, at least one image; the first the rest.
    """
    parts: list[list[NDArray[np.int64]]] = [[] for _ in shares]
    for label in np.unique(labels):
        rows = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        sizes = [max(1, round(share * len(rows))) for share in shares[1:]]
        pieces = np.split(rows, np.cumsum(sizes))
        for part, piece in zip(parts, (pieces[-1], *pieces[:-1]), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def to_batch(images: Images, dataset: Dataset, resolution: int) -> Tensor:
    """(n, c, r, r) float32, channels last, normalised to mean 0 and deviation 1 over `dataset.train`."""
    return normalised(to_tensor(images), dataset, resolution)


def to_tensor(images: Images) -> Tensor:
    """(n, c, h, w) uint8, channels last."""
    return torch.from_numpy(np.ascontiguousarray(images.pixels)).permute(0, 3, 1, 2)


def resized(images: Images, resolution: int) -> Pixels:
    """(n, r, r, c) uint8: what a network that normalises by itself reads."""
    if images.pixels.shape[1:3] == (resolution, resolution):
        return images.pixels
    size = (resolution, resolution)
    batch = F.interpolate(to_tensor(images).float(), size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(batch.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())


def normalised(pixels: Tensor, dataset: Dataset, resolution: int) -> Tensor:
    """(n, c, h, w) uint8 -> (n, c, r, r) float32 of mean 0 and deviation 1 over `dataset.train`, on the same
    device.
    """
    batch = pixels.float()
    if batch.shape[2:] != (resolution, resolution):
        batch = F.interpolate(batch, (resolution, resolution), mode="bilinear", antialias=True)
    mean, std = (
        torch.tensor(values, device=batch.device).mul(255).view(1, -1, 1, 1)
        for values in (dataset.mean, dataset.std)
    )
    return batch.sub_(mean).div_(std)


def _three_parts(read: Source, source: str, seed: int) -> dict[str, Images]:
    """Train, validation and test: the publisher's, and those that are missing split off the training part."""
    missing = [part for part in ("validation", "test") if part not in read.parts]
    shares = SPLIT if len(missing) == 2 else (1 - VALIDATION_SHARE, *(VALIDATION_SHARE for _ in missing))
    train = read.parts["train"]
    fewest = np.bincount(train.labels, minlength=len(read.classes))
    if fewest.min() < len(shares):
        name = read.classes[int(fewest.argmin())]
        raise TrilobitError(
            f"{source}: class {name!r} has {fewest.min()} training images, fewer than {len(shares)}; add some"
        )
    pieces = stratified_split(train.labels, shares, seed=seed)
    split_off = {part: train[rows] for part, rows in zip(("train", *missing), pieces, strict=True)}
    return {**read.parts, **split_off}


def _channel_statistics(pixels: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in 0..1, exact, from counts of the 256 values."""
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(pixels.shape[3]):
        share = np.bincount(pixels[..., channel].ravel(), minlength=256) / pixels[..., channel].size
        means.append(float(share @ values))
        deviation = np.sqrt(share @ (values - means[-1]) ** 2)
        deviations.append(max(float(deviation), 1 / 255))  # a constant channel must not divide by 0
    return tuple(means), tuple(deviations)


# -- sources ------------------------------------------------------------------------------------------


def _read_digits(argument: str, cache: Path | None) -> Source:
    if argument:
        raise TrilobitError(f"'digits' takes no argument, got {argument!r}; write just digits")
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
        raise TrilobitError(f"imagefolder needs a path: {SOURCES['imagefolder']}")
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
    """The side in pixels that `size=N` asks for; None where nothing is asked for."""
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
    """Height and width that the images of `source` will have, by the first of them; None where the source
    knows them by itself.

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
            f"cifar10 needs a folder that holds or receives the archive: {SOURCES['cifar10']}"
        )
    path = Path(argument)
    if path.name == cifar10.PICKLED:
        raise TrilobitError(f"{path}: pickled, so never read; give {cifar10.ARCHIVE} from {cifar10.URL}")
    other_archive = path.is_file() and path.name != cifar10.ARCHIVE
    folder_of_images = (path / "train").is_dir() or any(path.glob("*/train"))
    if other_archive or folder_of_images:
        return _read_image_folder(argument, cache)
    return cifar10.read_cifar10(path)


_READERS: Mapping[str, Callable[[str, Path | None], Source]] = {
    "digits": _read_digits,
    "imagefolder": _read_image_folder,
    "cifar10": _read_cifar10,
}


def _keep(path: Path, source: Source) -> None:
    arrays: dict[str, NDArray[Any]] = {"name": np.array(source.name), "classes": np.array(source.classes)}
    for part, images in source.parts.items():
        arrays |= {f"{part}.pixels": images.pixels, f"{part}.labels": images.labels}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def _read_kept(path: Path) -> Source | None:
    """A decoded archive, or None where it is absent or damaged."""
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
