"""What a network's file says of its inputs and of itself, before anything of it is bound or cleaned."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supernet.data.input_spec import InputSpec
from supernet.imported.fixed_value import Fixed
from supernet.imported.fixing import deciding_inputs, fix_inputs
from supernet.imported.onnx_file import graph_of, read_onnx
from supernet.imported.open_dimensions import input_dtypes, input_shapes, name_dimensions


@dataclass(frozen=True)
class Reads:
    """What a network reads.

    Attributes:
        specs: its inputs, open dimensions by their names.
        metadata: the file's own, which may say how images are prepared.
        deciding: inputs that decide which branch of an `If` runs.
    """

    specs: tuple[InputSpec, ...]
    metadata: Mapping[str, str]
    deciding: tuple[str, ...] = ()


def input_specs(source: Path | bytes, fixed: Fixed | None = None) -> Reads:
    """Return what the network in an ONNX file reads: what samples are made for.

    Args:
        fixed: value of inputs that always have the same.

    Raises:
        TrilobitError: no ONNX file that can be used, an input that is no array of numbers, or one that cannot
            be fixed to this.
    """
    model = graph_of(read_onnx(source))
    name_dimensions(model)
    dtypes, values = input_dtypes(model), fixed or {}
    specs = tuple(
        InputSpec(name, shape, dtypes[name], values.get(name)) for name, shape in input_shapes(model).items()
    )
    fix_inputs(model, values)
    return Reads(specs, dict(model.metadata_props), deciding_inputs(model))
