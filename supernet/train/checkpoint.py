"""Checkpoints: tensors and plain values only, written atomically, read without running any code in them.

Two forms. A training's (`supernet/1`) holds all it takes to go on; `save_weights` leaves the compact form
(`weights/1`): the weights alone, and what a reader of them should know.
"""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic

SCHEMA = "supernet/1"
WEIGHTS = "weights/1"

State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a supernet, whatever number formats its space had.

    Attributes:
        tensors: by the names of the network's state; real ones are float32.
        space: name of the space; empty where the file does not say.
        classes: names of the classes; empty where the file does not say.
        data: fingerprint of the images; empty where the file does not say.
        unfinished: steps that the training behind them had left.
        metadata: plain values: what they were trained on and how; empty for a training's own checkpoint.
    """

    tensors: Mapping[str, Tensor]
    space: str = ""
    classes: tuple[str, ...] = ()
    data: str = ""
    unfinished: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, state: State) -> None:
    """Write `state` (tensors, numbers, strings, containers of them) as `supernet/1`."""
    _save(path, {"schema": SCHEMA, **state})


def load_checkpoint(path: Path, *, fingerprint: str) -> State:
    """Read `supernet/1` written for the space of `fingerprint`.

    Raises:
        TrilobitError: missing, damaged, holding anything but tensors and plain values, of another schema or
            space.
    """
    state = _read(path, SCHEMA, remedy="delete it and run `nas train` again")
    if state.get("space") != fingerprint:
        raise TrilobitError(
            f"{path}: trained for space {state.get('space')}, not {fingerprint}; "
            "use the space it was trained for, or another run folder"
        )
    return state


def trained_weights(state: State) -> dict[str, Tensor]:
    """Return the weights to use of a training's state: the averaged ones once averaging has begun."""
    if "ema" not in state or not state["ema"]["n_averaged"]:
        return dict(state["model"])
    prefix = "module."
    return {name.removeprefix(prefix): w for name, w in state["ema"].items() if name.startswith(prefix)}


def compact(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as the compact form holds them."""
    return {
        name: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in tensors.items()
    }


def save_weights(path: Path, weights: Weights) -> None:
    """Write the compact form: matrices and filters in 16 bits, vectors (biases, batch norm) as they are."""
    document = {
        "space": weights.space,
        "classes": list(weights.classes),
        "data": weights.data,
        "architecture": architecture(weights.tensors),
        "metadata": dict(weights.metadata),
    }
    _save(path, {"schema": WEIGHTS, **document, "model": compact(weights.tensors)})


def load_weights(path: Path) -> Weights:
    """Return the weights in a training's checkpoint, in a compact one, or in one that `nas import-ofa` wrote.

    Raises:
        TrilobitError: missing, a folder, damaged, holding anything but tensors and plain values, or of
            another schema.
    """
    state = _read(path, SCHEMA, WEIGHTS, remedy="give a checkpoint of `nas train` or `nas import-ofa`")
    whole = state["schema"] == SCHEMA
    try:
        stored = trained_weights(state) if whole else state["model"]
        tensors = {str(name): _real(tensor) for name, tensor in stored.items()}
        weights = Weights(
            tensors,
            space=str(state.get("name", "") if whole else state["space"]),
            classes=tuple(map(str, state.get("classes", ()))),
            data=str(state.get("data", "")),
            unfinished=int(state["steps"]) - int(state["step"]) if whole else 0,
            metadata=dict(state.get("metadata", {})),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrilobitError(
            f"{path}: not a whole {state['schema']} checkpoint ({type(error).__name__}: {error}); "
            "write it again"
        ) from None
    if not whole and architecture(tensors) != state.get("architecture"):
        raise TrilobitError(f"{path}: its tensors are not those it was written with; write it again")
    return weights


def architecture(tensors: Mapping[str, Tensor]) -> str:
    """Return the identity of what the weights fit into: a hash of the tensors' names and shapes."""
    shapes = sorted((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]


def content_hash(path: Path) -> str:
    """Return the identity of a file, wherever it is.

    Raises:
        TrilobitError: there is none, or it is a folder.
    """
    _check_file(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _real(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _save(path: Path, document: State) -> None:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_atomic(path, buffer.getvalue())


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise TrilobitError(f"{path}: a folder; give the file, such as {path / 'supernet' / 'last.pt'}")
    if not path.exists():
        raise TrilobitError(f"{path}: no such checkpoint; run `nas train`")


def _read(path: Path, *schemas: str, remedy: str) -> State:
    _check_file(path)
    try:
        _check_sums(path)
        with warnings.catch_warnings(action="error"):  # torch warns of files that it did not write itself
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # torch's reader raises anything at all on a file that is not its own
        raise TrilobitError(
            f"{path}: not a checkpoint this version can read (damaged, or more than tensors in it); {remedy}"
        ) from None
    schema = state.get("schema") if isinstance(state, dict) else type(state).__name__
    if not isinstance(state, dict) or schema not in schemas:
        readable = " or ".join(map(repr, schemas))
        raise TrilobitError(f"{path}: schema {schema!r}, but this version reads {readable}; {remedy}")
    return state


def _check_sums(path: Path) -> None:
    """Check the sums that torch writes of every tensor, but does not look at it when reading.

    Raises:
        zipfile.BadZipFile: a checksum is wrong, or the file is no archive at all.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
