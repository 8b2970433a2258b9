"""Replaces stored numbers of an imported model."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from supernet.imported.model import ImportedModel


def with_constants(model: ImportedModel, constants: Mapping[str, NDArray[np.generic]]) -> ImportedModel:
    """Return a model with other numbers, of the same shapes and types, in the place of its own."""
    if not constants:
        return model
    proto = onnx.load_from_string(model.content)
    for tensor in proto.graph.initializer:
        if tensor.name in constants:
            tensor.CopyFrom(numpy_helper.from_array(constants[tensor.name], tensor.name))
    return replace(model, content=proto.SerializeToString(), constants={**model.constants, **constants})


def changed_constants(model: ImportedModel, original: ImportedModel) -> dict[str, NDArray[np.generic]]:
    """Return the numbers of a model that are not those of the original."""
    return {
        name: array
        for name, array in model.constants.items()
        if array is not original.constants.get(name)
        and not np.array_equal(array, original.constants[name], equal_nan=array.dtype.kind == "f")
    }
