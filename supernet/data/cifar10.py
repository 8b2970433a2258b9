"""CIFAR-10 as its authors publish it (Krizhevsky 2009), in the binary version: no pickle is ever read."""

import hashlib
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from supernet.data.images import Images, Source

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # published beside the file
ARCHIVE = "cifar-10-binary.tar.gz"
PICKLED = "cifar-10-python.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes, row by row
_TIMEOUT_S = 30
_MOST_BYTES = 200 * 2**20  # it has 162 MiB


def read_cifar10(path: Path) -> Source:
    """Return the published archive at `path`, or inside the folder `path`, where it is downloaded when
    absent.

    Raises:
        TrilobitError: no network, a wrong checksum, or the pickled version of the archive.
    """
    archive = path if path.name == ARCHIVE else path / ARCHIVE
    if not archive.is_file():
        _download(archive)
    if _md5(archive.read_bytes()) != MD5:
        raise TrilobitError(f"{archive}: its MD5 is not the published {MD5}; delete the file and start again")
    files: dict[str, bytes] = {}
    with tarfile.open(archive, "r|gz") as members:
        for member in members:
            if member.isreg() and member.name.endswith(".bin") and (file := members.extractfile(member)):
                files[member.name.rsplit("/", 1)[-1]] = file.read()
    train = b"".join(files[f"data_batch_{batch}.bin"] for batch in range(1, 6))
    return Source("cifar10", CLASSES, {"train": _images(train), "test": _images(files["test_batch.bin"])})


def _images(records: bytes) -> Images:
    table = np.frombuffer(records, np.uint8).reshape(-1, _RECORD_BYTES)
    planes = table[:, 1:].reshape(-1, 3, 32, 32)
    return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), table[:, 0].astype(np.int64))


def _download(archive: Path) -> None:
    try:
        with urllib.request.urlopen(URL, timeout=_TIMEOUT_S) as response:
            data = response.read(_MOST_BYTES)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise TrilobitError(
            f"{archive}: absent, and {URL} cannot be reached ({reason}); fetch it elsewhere and put it there"
        ) from None
    if _md5(data) != MD5:
        raise TrilobitError(f"{URL}: the download's MD5 is not the published {MD5}; try again")
    write_atomic(archive, data)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
