"""The model as it was given: whole, and what it says of its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hw_profiles.errors import TrilobitError
from supernet.data.input_spec import InputSpec
from supernet.imported.onnx_file import LARGEST, read_onnx
from supernet.imported.open_dimensions import bind


def original_file(path: Path) -> bytes:
    """Return an ONNX file with the weights that it keeps in others.

    Raises:
        TrilobitError: it is no such file, or too large for one file.
    """
    try:
        proto = read_onnx(path)
    except TrilobitError as error:
        raise TrilobitError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    content = path.read_bytes()
    try:
        read_onnx(content)  # refuses what is not whole
    except TrilobitError:
        return _whole(proto.SerializeToString, path)
    return content


def _whole(serialise: Callable[[], bytes], path: Path) -> bytes:
    try:
        return serialise()
    except ValueError:
        raise TrilobitError(
            f"{path}: with its weights larger than the {LARGEST:,} bytes of one file"
        ) from None


def bound_specs(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> tuple[InputSpec, ...]:
    """Return what a network says of its inputs, with the open dimensions that `shapes` binds at their sizes.

    Raises:
        TrilobitError: a shape does not fit.
    """
    dimensions = {spec.name: spec.shape for spec in specs}
    named = {name: dimensions[name] for name in shapes if name in dimensions}
    bound = bind(named if len(named) == len(shapes) else dimensions, shapes) if shapes else {}
    return tuple(
        replace(spec, shape=tuple(bound.get(d, d) if isinstance(d, str) else d for d in spec.shape))
        for spec in specs
    )
