"""Checkpoints: tensors and plain values only, written atomically, read without running any code in them."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic

SCHEMA = "supernet/1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, containers of them) as `supernet/1`."""
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **state}, buffer)
    write_atomic(path, buffer.getvalue())


def load_checkpoint(path: Path, *, fingerprint: str) -> dict[str, Any]:
    """Read `supernet/1` written for the space of `fingerprint`.

    Raises:
        TrilobitError: missing, damaged, holding anything but tensors and plain values, of another schema or
            space.
    """
    try:
        _check_sums(path)
        with warnings.catch_warnings(action="error"):  # torch warns of files that it did not write itself
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrilobitError(f"{path}: no such checkpoint; run `nas train`") from None
    except PermissionError:
        raise
    except Exception:  # torch's reader raises anything at all on a file that is not its own
        raise TrilobitError(
            f"{path}: not a checkpoint this version can read (damaged, or more than tensors in it); "
            "delete it and run `nas train` again"
        ) from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        found = state.get("schema") if isinstance(state, dict) else type(state).__name__
        raise TrilobitError(
            f"{path}: schema {found!r}, but this version reads {SCHEMA!r}; run `nas train` again"
        )
    if state.get("space") != fingerprint:
        raise TrilobitError(
            f"{path}: trained for space {state.get('space')}, not {fingerprint}; "
            "use the space it was trained for, or another run folder"
        )
    return state


def _check_sums(path: Path) -> None:
    """Torch writes a checksum of every tensor, but does not look at it when reading.

    Raises:
        zipfile.BadZipFile: a checksum is wrong, or the file is no archive at all.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
