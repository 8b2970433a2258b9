"""What a network's file says of its inputs and of itself, before anything of it is bound or cleaned."""

from collections.abc import Mapping
from pathlib import Path

from hw_profiles.errors import TrilobitError, shown
from supernet.data.input_spec import InputSpec
from supernet.imported.onnx_file import read_onnx
from supernet.imported.open_dimensions import input_shapes, name_dimensions


def input_specs(source: Path | bytes) -> tuple[tuple[InputSpec, ...], Mapping[str, str]]:
    """Return the inputs of an ONNX file, open dimensions by their names, and the file's metadata: what
    samples are read for.

    Raises:
        TrilobitError: no ONNX file that can be used, or an input that is no array of numbers.
    """
    model = read_onnx(source)
    name_dimensions(model)
    shapes = input_shapes(model)
    dtypes = {str(value.name): value.dtype for value in model.graph.inputs}
    specs = []
    for name, shape in shapes.items():
        dtype = dtypes[name]
        try:
            numpy_name = "" if dtype is None else dtype.numpy().name
        except TypeError:  # strings, and types that numpy lacks
            numpy_name = ""
        if not numpy_name:
            raise TrilobitError(
                f"input {shown(name)} is no array of numbers ({dtype}); such a network cannot be tuned"
            )
        specs.append(InputSpec(name, shape, numpy_name))
    return tuple(specs), dict(model.metadata_props)
