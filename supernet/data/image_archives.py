"""Images in class folders, read from a folder, a tar or a zip file. Nothing is ever extracted to disk.

The layout is `[anything/]PART/CLASS/NAME.{jpg,jpeg,png}` with the parts `train` and, optionally, `test` and
`val`. A lone `val` is the test part, as in ImageNet.
"""

import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.files import entries_below
from supernet.data.images import Images, Pixels, Source

PARTS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")
LAYOUT = "expected [anything/]train/CLASS/*.{jpg,jpeg,png} and optionally test/CLASS/*"

MOST_BYTES = 64 * 2**20  # of one image file
MOST_PIXELS = 64_000_000  # of one image before it is scaled
MOST_EXPANSION = 200  # times that an archive may grow: images do not, archives made to fill memory do
LARGEST_SIDE = 256  # that images are kept at unless a size is given: no space looks at more than 224 pixels
MOST_SIZE = 1_024  # that may be asked for

_FORMATS = ("JPEG", "PNG")  # the decoders that Pillow may use, whatever a file is named
_GREY_MODES = ("1", "L", "LA")
_ENCRYPTED = 0x1  # a flag of a member of a zip

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
        with _decoder(f"{path}: {key[2]}"), Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            return opened.height, opened.width
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
    if path.is_dir():
        return _folder_files(path)
    if not path.is_file():
        raise TrilobitError(f"{path}: no such file or folder; give one, or a .tar, .tar.gz, .tar.xz or .zip")
    return _archive_files(path)


def _folder_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    for file in sorted(entries_below(path)):
        if (key := _key(file.relative_to(path).as_posix())) and file.is_file():
            _require_small(file.stat().st_size, str(file))
            yield key, file.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    """Return the members one after the other as they lie in the archive; broken archives become one-line
    errors.
    """
    try:
        yield from (_zip_files if zipfile.is_zipfile(path) else _tar_files)(path)
    except (TrilobitError, MemoryError, PermissionError):
        raise
    except Exception as error:  # these readers raise anything at all on what is damaged
        reason = shown(str(error) or type(error).__name__)
        raise TrilobitError(
            f"{path}: not a whole .tar, .tar.gz, .tar.xz or .zip file ({reason}); fetch it again"
        ) from None


class _Member(tarfile.TarInfo):
    """A member of a tar that ends where its end is marked: tarfile takes a damaged header, and the end of a
    file that was cut between two members, for the end of the archive.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the mark; typeshed lacks it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"cut or damaged at byte {tarfile_.offset:,}: {error}") from None


def _tar_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    expansion = _Expansion(path)
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:  # "|": one pass from front to back
        for member in archive:
            expansion.add(member.size)  # also of what is skipped, which is decompressed too
            key = _key(member.name) if member.isreg() else None  # neither links nor devices
            if key:
                _require_small(member.size, f"{path}: {member.name}")
                if file := archive.extractfile(member):
                    yield key, file.read()


def _zip_files(path: Path) -> Iterator[tuple[Key, bytes]]:
    expansion = _Expansion(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if key := _key(member.filename):
                if member.flag_bits & _ENCRYPTED:
                    raise TrilobitError(f"{path}: {member.filename} is encrypted; pack it without a password")
                _require_small(member.file_size, f"{path}: {member.filename}")
                expansion.add(member.file_size)
                with archive.open(member) as file:
                    data = file.read(MOST_BYTES + 1)
                _require_small(len(data), f"{path}: {member.filename}")  # what it says may be wrong
                yield key, data


def _require_small(size_bytes: int, name: str) -> None:
    if size_bytes > MOST_BYTES:
        raise TrilobitError(
            f"{name}: {size_bytes:,} bytes, and an image has at most {MOST_BYTES:,}; scale it down or "
            "remove it"
        )


@dataclass
class _Expansion:
    """How much comes out of an archive, against its size.

    Raises:
        TrilobitError: so much that it is made to fill memory.
    """

    path: Path
    total_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Count one member."""
        self.total_bytes += size_bytes
        packed_bytes = self.path.stat().st_size
        if self.total_bytes > MOST_EXPANSION * packed_bytes + MOST_BYTES:
            raise TrilobitError(
                f"{self.path}: more than {MOST_EXPANSION} times its {packed_bytes:,} bytes come out of it, "
                "which no images do; unpack it yourself if you trust it, and give the folder"
            )


def _key(name: str) -> Key | None:
    """Return the part, class and path of an image file; None for all else, also for absolute paths and those
    with `..`.

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


@contextmanager
def _decoder(name: str) -> Iterator[None]:
    """Tell what a decoder raises in one line; a warning of too many pixels is an error too."""
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            yield
    except (TrilobitError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything at all on what is damaged
        raise TrilobitError(
            f"{name}: broken image ({shown(str(error) or type(error).__name__)}); mend or remove it"
        ) from None


def _decode(data: bytes, shape: tuple[int, int] | None, name: str) -> Pixels:
    """Return (h, w, c) pixels, c = 1 for a grey image and 3 for every other.

    Args:
        shape: to scale to; None keeps the image's own, up to `LARGEST_SIDE`.
    """
    with _decoder(name), Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise TrilobitError(
                f"{name}: {opened.width} x {opened.height} pixels, and an image has at most {MOST_PIXELS:,}; "
                "scale it down or remove it"
            )
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bit grey; converting would clip it
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("L" if image.mode in _GREY_MODES else "RGB")
        if shape is None and max(image.size) > LARGEST_SIDE:
            shape = (LARGEST_SIDE, LARGEST_SIDE)
        if shape and shape != (image.height, image.width):
            image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)
