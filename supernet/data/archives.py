"""Files of a folder, a tar or a zip file, one after the other. Nothing is ever extracted to disk.

Archives come from others: what is cut, damaged, encrypted or made to fill memory is refused in one line.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.files import entries_below

MOST_BYTES = 64 * 2**20  # of one file
MOST_EXPANSION = 200  # times that an archive may grow: images do not, archives made to fill memory do

_ENCRYPTED = 0x1  # a flag of a member of a zip

Accepts = Callable[[str], bool]  # whether the file of this path inside the source is wanted
Read = Callable[[], bytes]


def read_files(path: Path, accepts: Accepts) -> Iterator[tuple[str, bytes]]:
    """Yield path inside and content of the files that `accepts` takes, as they lie in a folder (sorted) or in
    a .tar, .tar.gz, .tar.xz or .zip file.

    Raises:
        TrilobitError: nothing there, not a whole archive, an encrypted member, or one too large.
    """
    for name, read in _members(path, accepts):
        yield name, read()


def file_names(path: Path, accepts: Accepts) -> list[str]:
    """Return the paths of the files that `accepts` takes, without reading them.

    Raises:
        TrilobitError: as `read_files`.
    """
    return [name for name, _ in _members(path, accepts)]


def is_plain(name: str) -> bool:
    """Return whether a path inside an archive is of an ordinary file: not hidden, not absolute, without `..`.

    >>> is_plain("photos/a.jpg"), is_plain("../a.jpg"), is_plain("__MACOSX/a.jpg"), is_plain("x/.a.jpg")
    (True, False, False, False)
    """
    path = PurePosixPath(name)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return not hidden and not path.is_absolute() and ".." not in path.parts


def _members(path: Path, accepts: Accepts) -> Iterator[tuple[str, Read]]:
    if path.is_dir():
        return _folder_files(path, accepts)
    if not path.is_file():
        raise TrilobitError(f"{path}: no such file or folder; give one, or a .tar, .tar.gz, .tar.xz or .zip")
    return _archive_files(path, accepts)


def _folder_files(path: Path, accepts: Accepts) -> Iterator[tuple[str, Read]]:
    for file in sorted(entries_below(path)):
        if accepts(name := file.relative_to(path).as_posix()) and file.is_file():
            _require_small(file.stat().st_size, str(file))
            yield name, file.read_bytes


def _archive_files(path: Path, accepts: Accepts) -> Iterator[tuple[str, Read]]:
    """Return the members one after the other as they lie in the archive; broken archives become one-line
    errors.
    """
    try:
        yield from (_zip_files if zipfile.is_zipfile(path) else _tar_files)(path, accepts)
    except (TrilobitError, MemoryError, PermissionError):
        raise
    except Exception as error:  # these readers raise anything at all on what is damaged
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> TrilobitError:
    reason = shown(str(error) or type(error).__name__)
    return TrilobitError(
        f"{path}: not a whole .tar, .tar.gz, .tar.xz or .zip file ({reason}); fetch it again"
    )


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


def _tar_files(path: Path, accepts: Accepts) -> Iterator[tuple[str, Read]]:
    expansion = _Expansion(path, path.stat().st_size)
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:  # "|": one pass from front to back
        for member in archive:
            expansion.add(member.size)  # also of what is skipped, which is decompressed too
            if member.isreg() and accepts(member.name):  # neither links nor devices
                _require_small(member.size, f"{path}: {member.name}")
                yield member.name, lambda member=member: _tar_content(path, archive, member)  # type: ignore[misc]


def _tar_content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        return file.read() if file else b""
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(path, error) from None


def _zip_files(path: Path, accepts: Accepts) -> Iterator[tuple[str, Read]]:
    expansion = _Expansion(path, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir() or not accepts(member.filename):
                continue
            if member.flag_bits & _ENCRYPTED:
                raise TrilobitError(f"{path}: {member.filename} is encrypted; pack it without a password")
            _require_small(member.file_size, f"{path}: {member.filename}")
            expansion.add(member.file_size)
            yield member.filename, lambda member=member: _zip_content(path, archive, member)  # type: ignore[misc]


def _zip_content(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as file:
            data = file.read(MOST_BYTES + 1)
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(path, error) from None
    _require_small(len(data), f"{path}: {member.filename}")  # what it says may be wrong
    return data


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
    packed_bytes: int
    total_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Count one member."""
        self.total_bytes += size_bytes
        if self.total_bytes > MOST_EXPANSION * self.packed_bytes + MOST_BYTES:
            raise TrilobitError(
                f"{self.path}: more than {MOST_EXPANSION} times its {self.packed_bytes:,} bytes come out of "
                "it, which no images do; unpack it yourself if you trust it, and give the folder"
            )
