"""How one layer is measured in context: the difference between a small network with it and one without it.

Alone, a layer pays for the session, for reordering its input and output, and for nothing that its neighbours
did: sums of such times are 30 to 48 % off. In context they are 2 to 4 % off (docs/concepts/measuring.md).

Every probe network is `lead-in convolution to the state -> [layer] -> global pooling`. Its time is

    T(lead-in to state a, layer a -> b, pool) - T(lead-in to a, pool) = cost(layer) + pool(b) - pool(a)

where a state is (shape, format) of a tensor. Along a network the pool terms cancel, all but the last,
whatever they are. To make each row meaningful by itself they are taken out: for fp32 with pooling measured
alone, for integers so that quantizing and dequantizing a tensor cost the same. The second matters where a
shortcut is converted: that conversion has no counterpart.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.consumer import Consumer
from hw_profiles.graph.formats import CACHED, WHOLE
from hw_profiles.graph.layer import FP32, INPUT, Layer, map_layer
from hw_profiles.graph.tensor_type import BATCH, TensorType, image_shape
from hw_profiles.graph.workload import Feed, Workload, single

LEAD_IN_CHANNELS = 16  # a full SIMD block, as inside a real network
IDS = "int64"
UNLED = ("Opaque", "DequantizeLinear")  # nothing is known of it, or it gives what a curve does
_AS_THEY_ARE = (*WHOLE, *CACHED)  # formats of tensors that only networks are given
LEAD_IN_SIZE = 4  # map size before the pooling that leads to a 1 x 1 tensor

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Probe:
    """What to measure, and how a layer's cost follows.

    Attributes:
        workloads: (factor, probe network); the layer's samples are the sum of factor times samples, paired
            round by round.
        pools: (factor, pooling layer); times that layer's cost, one constant for all layers that name it.
    """

    workloads: tuple[tuple[float, Workload], ...]
    pools: tuple[tuple[int, Layer], ...] = ()


def in_context(layer: Layer) -> Probe:
    """Return how to measure `layer` where an engine fuses neighbours and chooses layouts; alone where it is
    not known what stands around it.
    """
    if layer.kind != layer.op and layer.op in PROBES.functions:
        return PROBES[layer.op](layer)
    if layer.op == "Conv" and layer.values.integer("image"):
        return _stem(layer)
    if layer.in_format in WHOLE:
        return alone(layer) if layer.weighted else _beside_lookup(layer)
    return alone(layer) if layer.op in UNLED or not layer.inputs else _led(layer)


def alone(layer: Layer) -> Probe:
    """Return how to measure `layer` where a network is nothing but its units one after the other."""
    return Probe(((1, single(layer)),))


def pooling(shape: Shape, fmt: str) -> Layer:
    """Return the layer whose row holds the cost of pooling a state."""
    return map_layer("pool", shape, shape[0], activation_format=fmt)


def _after_lead_in(shape: Shape, fmt: str, *layers: Layer) -> Workload:
    """Build a network: lead-in to (shape, fmt), then `layers` one after the other, then pooling in the format
    reached.
    """
    channels, height, width = shape
    net = WorkloadBuilder((LEAD_IN_CHANNELS, height, width))
    x = net.add("lead_in", _pointwise((LEAD_IN_CHANNELS, height, width), channels, fmt), INPUT)
    for i, layer in enumerate(layers):
        x = net.add(f"layer{i}", layer, x)
    return _pooled(net, x, layers[-1].out_format if layers else fmt)


def _after_pooling(shape: Shape, fmt: str, *layers: Layer) -> Workload:
    """Build the same for a pooled tensor: lead-in, pooling, then `layers`."""
    map_shape = (LEAD_IN_CHANNELS, LEAD_IN_SIZE, LEAD_IN_SIZE)
    net = WorkloadBuilder(map_shape)
    x = net.add("lead_in", _pointwise(map_shape, shape[0], fmt), INPUT)
    x = net.add("pool", pooling(net.shape(x), fmt), x)
    for i, layer in enumerate(layers):
        x = net.add(f"layer{i}", layer, x)
    return net.build()


def _pooled(net: WorkloadBuilder, x: int, fmt: str) -> Workload:
    net.add("pool", pooling(net.shape(x), fmt), x)
    return net.build()


def _pointwise(shape: Shape, out_channels: int, fmt: str, activation: str = "relu") -> Layer:
    return map_layer("conv", shape, out_channels, 1, 1, 1, activation, fmt, fmt)


def _inserted(layer: Layer) -> Probe:
    shape, fmt = layer.in_shape, layer.activation_format
    context = _after_lead_in(shape, fmt)
    pools = ((1, pooling(shape, fmt)), (-1, pooling(layer.out_shape, fmt)))
    return Probe(((1, _after_lead_in(shape, fmt, layer)), (-1, context)), pools)


def _window(layer: Layer) -> Probe:
    """Return the recipe of a pooling window: before a convolution, since only there does it stay in the
    layout of its neighbours: right before the global pooling, an integer `avgpool` takes twice the time that
    it takes in a network.
    """
    shape, reached, fmt = layer.in_shape, layer.out_shape, layer.activation_format
    reader = _pointwise(reached, LEAD_IN_CHANNELS, fmt)
    workloads = (
        (1, _after_lead_in(shape, fmt, layer, reader)),
        (-1, _after_lead_in(shape, fmt)),
        (-1, _after_lead_in(reached, fmt, reader)),
        (1, _after_lead_in(reached, fmt)),
    )
    return Probe(workloads, ((1, pooling(shape, fmt)), (-1, pooling(reached, fmt))))


def _linear(layer: Layer) -> Probe:
    shape, fmt = layer.in_shape, layer.activation_format
    return Probe(((1, _after_pooling(shape, fmt, layer)), (-1, _after_pooling(shape, fmt))))


def _add(layer: Layer) -> Probe:
    """Return the recipe of a sum. In context it follows a projection, into which some engines fuse it. A
    shortcut dequantized for it alone has a row of its own; a quantized one is shared with the projection.
    """
    shape, fmt = layer.in_shape, layer.activation_format
    project = _pointwise(shape, shape[0], fmt, "none")
    other = "int8" if fmt == FP32 else FP32  # where a converted shortcut comes from

    def net(with_add: bool) -> Workload:
        builder = WorkloadBuilder((LEAD_IN_CHANNELS, *shape[1:]))
        lead_format = other if layer.kind == "add_converted" else fmt
        lead_in = _pointwise((LEAD_IN_CHANNELS, *shape[1:]), shape[0], lead_format)
        project_input = builder.add("lead_in", lead_in, INPUT)
        x = builder.add("project", project, project_input)
        if with_add:
            x = builder.add("add", layer, x, project_input)
        return _pooled(builder, x, fmt)

    pair: tuple[tuple[float, Workload], ...] = ((1, net(True)), (-1, net(False)))
    if layer.kind == "add" or fmt != FP32:
        return Probe(pair)
    return _without(Probe(pair), map_layer("dequantize", shape, shape[0], activation_format=other))


def _conversion(layer: Layer) -> Probe:
    """Return the recipe of a conversion: between two convolutions of the two formats (or pooling and a linear
    layer), since only there do layouts change too.

    T(a, convert, after b) - T(a) - [T(b, after b) - T(b)]: what the change costs above staying in the target
    format.
    """
    shape, source_format, target_format = layer.in_shape, layer.in_format, layer.out_format
    if shape[1:] == (1, 1):
        reader = map_layer(
            "linear", shape, LEAD_IN_CHANNELS, weight_format=target_format, activation_format=target_format
        )
        return Probe(_crossing(layer, reader, _after_pooling))
    reader = _pointwise(shape, LEAD_IN_CHANNELS, target_format)
    pools = ((1, pooling(shape, source_format)), (-1, pooling(shape, target_format)))
    return Probe(_crossing(layer, reader, _after_lead_in), pools)


def _crossing(
    conversion: Layer, reader: Layer, context: Callable[..., Workload]
) -> tuple[tuple[float, Workload], ...]:
    shape, source_format, target_format = conversion.in_shape, conversion.in_format, conversion.out_format
    return (
        (1, context(shape, source_format, conversion, reader)),
        (-1, context(shape, source_format)),
        (-1, context(shape, target_format, reader)),
        (1, context(shape, target_format)),
    )


def _led(layer: Layer) -> Probe:
    """Return the recipe of a layer that is none on maps: behind a curve of what it reads, so that the
    session's own cost is in no row.

    Of one that reads integers there is a second one in the network, since both read what is quantized once:
    T(curve, quantize, layer, its twin) - T(curve, quantize, layer). What quantizing costs is what is left
    then, before a small matrix.
    """
    if layer.op == "QuantizeLinear":
        codes = TensorType(layer.inputs[0].shape, layer.out_format)
        sizes = (int(codes.shape[-1]), LEAD_IN_CHANNELS)
        reader = Layer.of("MatMul", codes, weight_format=codes.format, weight=sizes, to=FP32)
        return Probe(
            ((2, _behind_curve(reader, 1)), (-1, _behind_curve(reader, 2)), (-1, _behind_curve(layer, 0)))
        )
    least = int(layer.in_format != FP32)
    return Probe(((1, _behind_curve(layer, least + 1)), (-1, _behind_curve(layer, least))))


def _behind_curve(layer: Layer, times: int) -> Workload:
    """Build a network: a curve of what a layer reads first, and that layer so many times side by side."""
    first, *others = (x if x.format in _AS_THEY_ARE else TensorType(x.shape) for x in layer.inputs)
    feeds = [Feed("x0", first)]
    feeds += [Feed(f"x{i}", other) for i, other in enumerate(others, 1) if times]
    net = WorkloadBuilder(feeds=feeds)
    x = net.add("lead_in", Layer.of("Gelu", first), INPUT)
    rest = (INPUT - i for i in range(1, len(layer.inputs)))
    reads = (x, *rest) if times else (x,)
    outputs = [net.add(f"layer{i}", layer, *reads) for i in range(times)]
    return net.build(*(y + i for y in outputs for i in range(len(layer.outputs))) if outputs else (x,))


def _beside_lookup(layer: Layer) -> Probe:
    """Return the recipe of a layer that reads whole numbers, such as what makes a mask of ids: beside the
    rows of a table, which begin every network of text. That table's own row is measured alone, with the
    session's own cost in it, as a stem is.
    """
    return Probe(((1, _looked_up(layer)), (-1, _looked_up())))


def _looked_up(*layers: Layer) -> Workload:
    ids = TensorType((BATCH, 1), IDS)
    feeds = [Feed("ids", ids)]
    feeds += [Feed(f"x{i}", x) for layer in layers for i, x in enumerate(layer.inputs)]
    net = WorkloadBuilder(feeds=feeds)
    outputs = [net.add("lead_in", Layer.of("Gather", ids, weight=(2, LEAD_IN_CHANNELS)), INPUT)]
    for layer in layers:
        outputs.append(net.add("layer", layer, *(INPUT - 1 - i for i in range(len(layer.inputs)))))
    return net.build(*outputs)


def _stem(layer: Layer) -> Probe:
    """Return the recipe of the first layer of a network, and with it the session's own cost. Its image
    conversion has a row of its own.
    """
    shape = image_shape(layer.inputs[0].shape)
    net = WorkloadBuilder(shape)
    x = net.add("stem", layer, INPUT)
    pools = ((-1, pooling(layer.out_shape, layer.out_format)),)
    whole = Probe(((1, _pooled(net, x, layer.out_format)),), pools)
    if layer.in_format == FP32:
        return whole
    image = map_layer("quantize", shape, shape[0], activation_format=layer.in_format)
    return _without(whole, image)


def _without(whole: Probe, layer: Layer) -> Probe:
    """Return what is left of `whole` when `layer`, which it contains, has a row of its own."""
    part = in_context(layer)
    return Probe(
        (*whole.workloads, *((-factor, work) for factor, work in part.workloads)),
        (*whole.pools, *((-factor, pool) for factor, pool in part.pools)),
    )


def _pool(layer: Layer) -> Probe:
    """Return the recipe of pooling: in fp32 pooling alone, above pooling a single number: the session's own
    cost.

    In integers what makes both directions of a conversion equal: the fp32 cost plus half the difference of
    the two crossings.
    """
    shape, fmt = layer.in_shape, layer.activation_format
    if fmt == FP32:
        return Probe(((1, _pool_only(shape)), (-1, _pool_only((1, 1, 1)))))
    quantize = map_layer("quantize", shape, shape[0], activation_format=fmt)
    dequantize = map_layer("dequantize", shape, shape[0], activation_format=fmt)
    there = _crossing(quantize, _pointwise(shape, LEAD_IN_CHANNELS, fmt), _after_lead_in)
    back = _crossing(dequantize, _pointwise(shape, LEAD_IN_CHANNELS, FP32), _after_lead_in)
    halves = [(factor / 2, work) for factor, work in there] + [(-factor / 2, work) for factor, work in back]
    return Probe(tuple(halves), ((1, pooling(shape, FP32)),))


def _pool_only(shape: Shape) -> Workload:
    net = WorkloadBuilder(shape)
    net.add("pool", pooling(shape, FP32), INPUT)
    return net.build()


PROBES: Consumer[Callable[[Layer], Probe]] = Consumer(
    "probing in context",
    {
        "Conv": lambda layer: _stem(layer) if layer.kind == "stem" else _inserted(layer),
        "InvertedResidual": _inserted,
        "Gemm": _linear,
        "MaxPool": _window,
        "AveragePool": _window,
        "GlobalAveragePool": _pool,
        "Add": _add,
        "QuantizeLinear": _conversion,
        "DequantizeLinear": _conversion,
    },
    otherwise="it is measured alone: what stands around it in networks is not known",
)
