"""Attention as the layers within it: two products, a softmax, and what divides heads and joins them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder, WorkloadBuilder
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.shape_rules import attended
from hw_profiles.graph.workload import Workload

# (batch, sequence, heads, depth) with heads before the sequence, and back; of keys the sequence comes last
BY_HEADS, TRANSPOSED = (0, 2, 1, 3), (0, 2, 3, 1)


class SpelledOut(NamedTuple):
    """A network without attention, whose scores nothing divides any more.

    Attributes:
        factors: what the matrix that gives the queries is multiplied with in place of that, by its name.
    """

    work: Workload
    factors: Mapping[str, float]


def spelled_out(work: Workload) -> SpelledOut:
    """Return a network with the layers of each `Attention` in its place; the last one keeps its name.

    Raises:
        TrilobitError: one has a cache or shared keys, a mask that is no row of truth values for each example,
            or queries that no matrix of its own gives.
    """
    if all(layer.op != "Attention" for layer in work.layers):
        return SpelledOut(work, {})
    layers = WorkloadBuilder(feeds=work.feeds)
    net = GraphBuilder(feeds=work.feeds, layers=layers)
    factors: dict[str, float] = {}
    now = {source: source for source in net.inputs}
    for position, (name, layer, sources) in enumerate(zip(work.names, work.layers, work.inputs, strict=True)):
        read = [now[source] for source in sources]
        if layer.op == "Attention":
            factors[_matrix(work, position)] = _factor(name, layer)
            result = _append(net, name, layer, read)
        else:
            result = layers.add(name, layer, *read)
        first = work.producers.index(position)
        now |= {first + i: result + i for i in range(len(layer.outputs))}
    return SpelledOut(layers.build(*(now[output] for output in work.outputs)), factors)


def _append(net: GraphBuilder, name: str, layer: Layer, sources: Sequence[int]) -> int:
    """Append the layers of one attention; return what the last one gives."""
    heads = layer.values.integer("q_num_heads")
    queries, keys, values = (
        _by_heads(net, f"{name}.{part}", x, heads, perm)
        for part, x, perm in zip("qkv", sources[:3], (BY_HEADS, TRANSPOSED, BY_HEADS), strict=True)
    )
    scores = net.product(f"{name}.scores", queries, keys)
    shares = net.op(f"{name}.softmax", "Softmax", scores, *sources[3:])
    joined = net.transpose(f"{name}.joined", net.product(f"{name}.mixed", shares, values), *BY_HEADS)
    return net.reshape(name, joined, 0, 0, -1)


def _by_heads(net: GraphBuilder, name: str, x: int, heads: int, perm: Sequence[int]) -> int:
    depth = int(net.dims(x)[-1]) // heads
    return net.transpose(f"{name}.heads", net.reshape(f"{name}.split", x, 0, 0, heads, depth), *perm)


def _factor(name: str, layer: Layer) -> float:
    """Return what scores are multiplied with.

    Raises:
        TrilobitError: it is more than attention of all to all.
    """
    a, read = layer.values, attended(layer.inputs, layer.values)
    if read.cached or a.integer("is_causal") or a.integer("present"):
        raise TrilobitError(f"{name}: attention with a cache, or to what stands before, has no plain layers")
    if a.integer("q_num_heads") != a.integer("kv_num_heads") or len(layer.inputs[0].shape) != 3:
        raise TrilobitError(
            f"{name}: attention whose heads share keys, or come divided, is not known as plain layers"
        )
    return a.number("scale") if "scale" in a else float(int(read.depth) ** -0.5)


def _matrix(work: Workload, position: int) -> str:
    """Return the name of the matrix that gives the queries of an attention, and nothing else."""
    queries = work.inputs[position][0]
    readers = sum(sources.count(queries) for sources in work.inputs)
    producer = work.layers[work.producers[queries]] if queries >= 0 else None
    if producer is None or producer.op != "MatMul" or not producer.weighted or readers > 1:
        raise TrilobitError(
            f"{work.names[position]}: no matrix gives its queries alone, to be divided in place of scores"
        )
    return work.names[work.producers[queries]]
