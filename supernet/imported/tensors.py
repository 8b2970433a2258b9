"""Sizes and element types of every tensor of a network, where open dimensions are bound."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, shape_inference

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.imported.made_up import Feeds

SEQUENCE = "sequence"  # in place of an element type, of what is a list of tensors


def tensor_types(
    content: bytes, bound: Mapping[str, int], feeds: Feeds
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return sizes, and numpy's names of element types, of every tensor that is not stored, by name.

    What cannot be inferred is found by running the network once.

    Args:
        content: an ONNX file.
        bound: size of every open dimension of its inputs.
        feeds: what it is run on.

    Raises:
        TrilobitError: it cannot be run at these sizes.
    """
    proto = onnx.load_model_from_string(content)
    types = {name: (array.shape, str(array.dtype)) for name, array in feeds.items()}
    types |= _inferred(proto, bound)
    names = [*feeds, *(name for node in proto.graph.node for name in node.output if name)]
    unknown = [name for name in names if name not in types]
    if unknown:
        types |= _run(proto, unknown, feeds)
    return {name: types[name][0] for name in names}, {name: types[name][1] for name in names}


def _inferred(proto: onnx.ModelProto, bound: Mapping[str, int]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return sizes and element types of what shape inference is sure of."""
    outline = onnx.ModelProto()
    outline.CopyFrom(proto)
    for value in outline.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = bound[dim.dim_param]
    for value in outline.graph.output:
        value.type.tensor_type.ClearField("shape")  # what the file says holds for other sizes
    try:
        outline = shape_inference.infer_shapes(outline, data_prop=True)
    except Exception:  # whatever it stumbles over: the network is run instead
        return {}
    graph = outline.graph
    types = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sized = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        if kind.elem_type and sized:
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            types[value.name] = (shape, _dtype(kind.elem_type))
    return types


def _dtype(element: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(element))


def _run(proto: onnx.ModelProto, names: list[str], feeds: Feeds) -> dict[str, tuple[tuple[int, ...], str]]:
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    given = {value.name for value in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    try:
        executable = host_runtime().compile(Artifact(whole.SerializeToString()))
        outputs = executable.run(feeds)
    except Exception as error:  # whatever the engine rejects
        raise TrilobitError(
            f"sizes inside depend on what the network reads, and on this it cannot be run: {one_line(error)}"
        ) from None
    return {
        name: (outputs[name].shape, str(outputs[name].dtype))
        if isinstance(outputs[name], np.ndarray)
        else ((), SEQUENCE)
        for name in names
    }
