"""Dimensions that a network leaves open: named, and bound to sizes before anything is counted or measured."""

import re
from collections.abc import Mapping

import onnx_ir as ir

from hw_profiles.errors import TrilobitError, did_you_mean, shown


class OpenDimensionsError(TrilobitError):
    """Dimensions need a size before the network can be counted or run."""


Shapes = Mapping[str, tuple[int, ...]]
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def name_dimensions(model: ir.Model) -> None:
    """Give every open dimension of an input a name; a mark such as `?` stands for any size, not for one.

    Dimensions of outputs with such a mark lose it, and so does what files claim of tensors inside.
    """
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                [_named(dim, f"{value.name}_dim{axis}") for axis, dim in enumerate(value.shape)]
            )
    forget_sizes(model)
    for value in model.graph.outputs:
        if value.shape is not None and value.producer() is not None:
            value.shape = ir.Shape([_named(dim, None) for dim in value.shape])


def forget_sizes(model: ir.Model) -> None:
    """Drop what is said of the sizes of tensors inside."""
    outputs = set(model.graph.outputs)
    for node in model.graph:
        for value in node.outputs:
            if value not in outputs:
                value.shape = None


def _named(dim: int | ir.SymbolicDim, otherwise: str | None) -> int | str | None:
    if isinstance(dim, int):
        return dim if dim >= 0 else otherwise
    return dim.value if dim.value and _SYMBOL.fullmatch(dim.value) else otherwise


def input_shapes(model: ir.Model) -> dict[str, tuple[int | str, ...]]:
    """Return sizes, or names of open dimensions, of every input.

    Raises:
        TrilobitError: the file does not say how many dimensions an input has.
    """
    shapes = {}
    for value in model.graph.inputs:
        if value.shape is None:
            raise TrilobitError(f"the file does not say how many dimensions input {shown(value.name)} has")
        shapes[str(value.name)] = tuple(
            dim if isinstance(dim, int) else str(dim.value) for dim in value.shape
        )
    return shapes


def input_dtypes(model: ir.Model) -> dict[str, str]:
    """Return numpy's name of the element type of every input."""
    return {
        str(value.name): str(value.dtype.numpy()) for value in model.graph.inputs if value.dtype is not None
    }


def sized(
    shapes: Mapping[str, tuple[int | str, ...]], bound: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return shapes with sizes in place of names."""
    return {
        name: tuple(dim if isinstance(dim, int) else bound[dim] for dim in shape)
        for name, shape in shapes.items()
    }


def bind(shapes: Mapping[str, tuple[int | str, ...]], given: Shapes) -> dict[str, int]:
    """Return the size of every open dimension of the inputs `shapes`, by its name.

    An open first dimension is a batch of one unless told otherwise.

    Raises:
        TrilobitError: a given shape does not fit, or dimensions have no size yet.
    """
    bound: dict[str, int] = {}
    for name, sizes in given.items():
        if name not in shapes:
            raise TrilobitError(
                f"the network has no input {shown(name)}{did_you_mean(name, shapes)}; it reads: "
                f"{', '.join(shapes)}"
            )
        _bind_input(name, shapes[name], sizes, bound)
    for shape in shapes.values():
        if shape and isinstance(shape[0], str):
            bound.setdefault(shape[0], 1)
    missing = {
        name: [dim for dim in shape if isinstance(dim, str) and dim not in bound]
        for name, shape in shapes.items()
    }
    missing = {name: dims for name, dims in missing.items() if dims}
    if missing:
        raise OpenDimensionsError(_request(shapes, missing, bound))
    return bound


def _bind_input(
    name: str, shape: tuple[int | str, ...], given: tuple[int, ...], bound: dict[str, int]
) -> None:
    if len(given) != len(shape):
        raise TrilobitError(
            f"input {name} has {len(shape)} dimensions, {text(shape)}, but --shape gives it {text(given)}"
        )
    for dim, size in zip(shape, given, strict=True):
        if size < 0 or (isinstance(dim, int) and dim != size):
            raise TrilobitError(f"input {name} is {text(shape)}, which cannot be {text(given)}")
        if isinstance(dim, str) and bound.setdefault(dim, size) != size:
            raise TrilobitError(
                f"dimension {dim} of input {name} is {size} here, but {bound[dim]} in another place"
            )


def _request(
    shapes: Mapping[str, tuple[int | str, ...]], missing: Mapping[str, list[str]], bound: Mapping[str, int]
) -> str:
    """Return what to say: which dimensions of which inputs, and the options with a `?` for each."""
    places = [f"{', '.join(dict.fromkeys(dims))} of input {name}" for name, dims in missing.items()]
    flags = [f"--shape {name}={text(tuple(_mark(dim, bound) for dim in shapes[name]))}" for name in missing]
    return (
        f"open dimensions need a size: {'; '.join(places)}. Say {' '.join(flags)} with a number for each ?, "
        "or give data of that shape"
    )


def _mark(dim: int | str, bound: Mapping[str, int]) -> int | str:
    return bound.get(dim, "?") if isinstance(dim, str) else dim


def text(shape: tuple[int | str, ...]) -> str:
    """Return a shape as people write it.

    >>> text((1, 3, "height", 224))
    '1x3xheightx224'
    """
    return "x".join(map(str, shape)) or "a scalar"
