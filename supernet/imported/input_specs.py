"""What a network's file says of its inputs and of itself, before anything of it is bound or cleaned."""

from collections.abc import Mapping
from pathlib import Path

from supernet.data.input_spec import InputSpec
from supernet.imported.onnx_file import graph_of, read_onnx
from supernet.imported.open_dimensions import input_dtypes, input_shapes, name_dimensions


def input_specs(source: Path | bytes) -> tuple[tuple[InputSpec, ...], Mapping[str, str]]:
    """Return the inputs of an ONNX file, open dimensions by their names, and the file's metadata: what
    samples are read for.

    Raises:
        TrilobitError: no ONNX file that can be used, or an input that is no array of numbers.
    """
    model = graph_of(read_onnx(source))
    name_dimensions(model)
    dtypes = input_dtypes(model)
    specs = tuple(InputSpec(name, shape, dtypes[name]) for name, shape in input_shapes(model).items())
    return specs, dict(model.metadata_props)
