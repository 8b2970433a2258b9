"""From an ONNX file to an `ImportedModel`."""

from collections.abc import Mapping
from pathlib import Path

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import BATCH, TensorType
from hw_profiles.graph.workload import Feed, Workload
from supernet.imported.fixed_value import Fixed
from supernet.imported.layers import Site, layer_of_unit, number_format, stored
from supernet.imported.made_up import Feeds, made_up_feeds
from supernet.imported.model import ImportedModel, Unit
from supernet.imported.multiply_adds import multiply_adds
from supernet.imported.onnx_file import graph_of, read_onnx
from supernet.imported.open_dimensions import Shapes, bind, input_shapes, sized
from supernet.imported.prepare import prepare
from supernet.imported.tensors import tensor_types
from supernet.imported.units import Group, group_nodes, reads_of


def import_onnx(
    source: Path | bytes,
    *,
    shapes: Shapes | None = None,
    feeds: Feeds | None = None,
    fixed: Fixed | None = None,
) -> ImportedModel:
    """Return somebody's network from an ONNX file.

    Args:
        source: path of the file, or its bytes where it keeps no weights in others.
        shapes: sizes of inputs with open dimensions, by name; an open first dimension is a batch of one
            where nothing else is said.
        feeds: an example of what it reads; needed only where sizes inside depend on values.
        fixed: value of inputs that always have the same, see `supernet.imported.fixing`.

    Raises:
        TrilobitError: it is no ONNX file that can be used, or dimensions have no size.
    """
    return describe(prepare(read_onnx(source), shapes, feeds, fixed), shapes, feeds, fixed)


def describe(
    content: bytes, shapes: Shapes | None = None, feeds: Feeds | None = None, fixed: Fixed | None = None
) -> ImportedModel:
    """Return what is in a prepared file; see `import_onnx`.

    Raises:
        TrilobitError: dimensions have no size.
    """
    model = graph_of(read_onnx(content))
    open_shapes = input_shapes(model)
    bound = bind(open_shapes, shapes or {})
    example = feeds or made_up_feeds(model, sized(open_shapes, bound), fixed)
    sizes, dtypes = tensor_types(content, bound, example)
    groups = group_nodes(model.graph)
    types = {
        name: _feed_type(open_shapes[name], sizes[name], number_format(dtypes[name])) for name in open_shapes
    }
    feed_types = tuple(Feed(name, type_) for name, type_ in types.items())
    units = tuple(_unit(group, types, sizes, dtypes) for group in groups)
    return ImportedModel(
        content=content,
        units=units,
        workload=_workload(units, feed_types, [str(value.name) for value in model.graph.outputs]),
        shapes=sizes,
        dtypes=dtypes,
        bound=bound,
        constants={name: stored(model.graph.initializers[name]) for name in _constants(units)},
        inputs=tuple(open_shapes),
        outputs=tuple(str(value.name) for value in model.graph.outputs),
        metadata=dict(model.metadata_props),
        fixed=dict(fixed or {}),
    )


def _feed_type(open_shape: tuple[int | str, ...], shape: tuple[int, ...], fmt: str) -> TensorType:
    """Return the type of an input; its first dimension is a batch where that is open, or one example."""
    batched = shape[:1] == (1,) and (len(shape) > 1 or isinstance(open_shape[0], str))
    return TensorType((BATCH, *shape[1:]) if batched else shape, fmt)


def _unit(
    group: Group,
    types: dict[str, TensorType],
    sizes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
) -> Unit:
    """Return a unit, and note the types of what it gives."""
    reads = reads_of(group)
    outputs = tuple(str(value.name) for value in group.nodes[-1].outputs if value.name)
    gives = tuple(TensorType(sizes[name], number_format(dtypes[name])) for name in outputs)
    site = Site(group, reads, tuple(types[name] for name in reads), gives)
    layer = layer_of_unit(site)
    types |= dict(zip(outputs, layer.outputs, strict=True))
    return Unit(
        name=str(group.nodes[0].name),
        op=group.nodes[0].op_type,
        nodes=tuple(str(node.name) for node in group.nodes),
        inputs=reads,
        outputs=outputs,
        layer=layer,
        weight="" if group.weight is None else str(group.weight.name),
        bias="" if group.bias is None else str(group.bias.name),
        macs=multiply_adds(site),
    )


def _constants(units: tuple[Unit, ...]) -> list[str]:
    return [name for unit in units for name in (unit.weight, unit.bias) if name]


def _workload(units: tuple[Unit, ...], feeds: tuple[Feed, ...], outputs: list[str]) -> Workload:
    numbers = {feed.name: -1 - position for position, feed in enumerate(feeds)}
    layers: list[Layer] = []
    inputs = []
    for unit in units:
        inputs.append(tuple(numbers[name] for name in unit.inputs[: len(unit.layer.inputs)]))
        layers.append(unit.layer)
        for name in unit.outputs:
            numbers[name] = len(numbers) - len(feeds)
    return Workload(
        names=tuple(unit.name for unit in units),
        layers=tuple(layers),
        inputs=tuple(inputs),
        feeds=feeds,
        outputs=tuple(numbers[name] for name in outputs if name in numbers),
    )
