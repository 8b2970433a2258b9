"""`.npy` and `.npz` files; nothing in them is ever unpickled."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, shown

SUFFIXES = (".npy", ".npz")
MOST_BYTES = 16 * 2**30  # of one array, as its header has it


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; that of a `.npy` by an empty one.

    Raises:
        TrilobitError: missing, damaged, or it holds Python objects.
    """
    try:
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            _require_sizes(path)
            loaded = np.load(file, allow_pickle=False)
            arrays = (
                {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else {"": loaded}
            )
    except (TrilobitError, MemoryError, PermissionError):
        raise
    except FileNotFoundError:
        raise TrilobitError(f"{path}: no such file; give one, or a folder") from None
    except Exception as error:  # numpy's reader raises anything at all on what is damaged
        raise _refusal(path, error) from None
    return {name: np.asarray(array) for name, array in arrays.items()}


def _require_sizes(path: Path) -> None:
    """Raise unless what a .npz unpacks to can be meant."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > MOST_BYTES:
        raise TrilobitError(f"{path}: {total / 2**30:.1f} GiB come out of it; give fewer samples")


def _refusal(path: Path, error: Exception) -> TrilobitError:
    if "allow_pickle" in str(error) or "pickle" in str(error).lower():
        return TrilobitError(
            f"{path}: holds Python objects, which are never unpickled (arrays of samples of different "
            "sizes are such); save one array of numbers per input"
        )
    reason = shown(str(error) or type(error).__name__)
    return TrilobitError(f"{path}: not a whole .npy or .npz file ({reason}); write it again")
