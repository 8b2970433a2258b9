"""What a tune's folder holds of its model: enough to write the file of any policy, wherever the folder is."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from nas.run.paths import EXAMPLE, ORIGINAL, QUANTIZATION
from supernet.imported.fixed_value import Fixed
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from supernet.ptq.quantization import Quantization
from supernet.ptq.quantization_file import load_quantization

Example = dict[str, NDArray[np.generic]]


def save_example(folder: Path, example: Example) -> None:
    """Write what the model reads for one example: sizes of open dimensions among it."""
    buffer = io.BytesIO()
    np.savez(buffer, **example)  # type: ignore[arg-type]
    write_atomic(folder / EXAMPLE, buffer.getvalue())


def _stored_example(folder: Path) -> Example:
    """Return what the model reads for one example.

    Raises:
        TrilobitError: it is not there, or damaged.
    """
    path = folder / EXAMPLE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError):
        raise TrilobitError(f"{path}: missing or damaged; run `nas tune -o {folder}` again") from None


def _stored_model(folder: Path, fixed: Fixed) -> ImportedModel:
    """Return the model of a folder, imported as it was tuned.

    Args:
        fixed: value of inputs that always have the same.

    Raises:
        TrilobitError: the folder lacks it.
    """
    path, example = folder / ORIGINAL, _stored_example(folder)
    if not path.is_file():
        raise TrilobitError(f"{path}: no such file; run `nas tune -o {folder}` again")
    shapes = {name: array.shape for name, array in example.items()}
    return import_onnx(path.read_bytes(), shapes=shapes, feeds=example, fixed=fixed)


def stored_quantization(folder: Path, fixed: Fixed) -> Quantization:
    """Return what any policy of the folder's model needs.

    Args:
        fixed: value of inputs that always have the same.

    Raises:
        TrilobitError: the folder lacks it, or it is damaged.
    """
    return load_quantization(folder / QUANTIZATION, _stored_model(folder, fixed))
