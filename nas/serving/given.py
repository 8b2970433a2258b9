"""A model's file, and an example of what it reads, as people give them. Imports
no torch: it runs in a process of its own (`nas.checks.confined`).
"""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime, TensorInfo

FLAT_MAGIC = b"TFL3"  # at byte 4 of a .tflite file
REMEDY = "give an .npz file with an array for each input"


def opened_by(runtime: Runtime, content: bytes) -> Executable:
    """Return a model's file, ready to run.

    Raises:
        ValueError: the runtime rejects it, or it is no model; says what it is and what to do.
    """
    try:
        return runtime.compile(Artifact(content, exact_sums=True))
    except Exception as error:  # whatever an engine rejects, in its own words
        raise ValueError(_no_model(content) or one_line(error)) from None


def _no_model(content: bytes) -> str:
    """Return why these bytes are no model; empty where they are one that a runtime may reject."""
    if content[4 : 4 + len(FLAT_MAGIC)] == FLAT_MAGIC:
        return ""
    from supernet.imported.onnx_file import parse_onnx  # only where something is wrong

    try:
        parse_onnx(content)
    except TrilobitError as error:
        return str(error)
    return ""


def example_for(executable: Executable, path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file that a network reads.

    Raises:
        ValueError: it is no such file, or an array is missing, of another type or of another shape.
    """
    arrays = read_example(path)
    example = {info.name: arrays[info.name] for info in executable.inputs if info.name in arrays}
    for info in executable.inputs:
        if info.name not in example:
            has = ", ".join(arrays) or "none"
            raise ValueError(f"--inputs {path.name}: no array {info.name}, it has {has}; {REMEDY}")
        given, about = example[info.name], f"--inputs {path.name}: {info.name} is"
        if str(given.dtype) != info.dtype:
            raise ValueError(f"{about} {given.dtype}, the model reads {info.dtype}")
        if not fits(info, given):
            sizes, read = "x".join(map(str, given.shape)), "x".join(str(size or "n") for size in info.shape)
            raise ValueError(f"{about} {sizes}, the model reads {read}")
    return example


def fits(info: TensorInfo, array: NDArray[Any]) -> bool:
    """Return whether an array has the sizes that an input has."""
    return len(info.shape) == array.ndim and all(
        size in (None, given) for size, given in zip(info.shape, array.shape, strict=True)
    )


def read_example(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file, by name.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (
        ValueError,
        AttributeError,
        TypeError,
        OSError,
        EOFError,
        BadZipFile,
    ):  # an .npy is an array alone
        raise ValueError(f"--inputs {path.name}: no .npz file of numbers; {REMEDY}") from None
