"""Decoders with a key-value cache: what a network that reads a whole text becomes where it goes on from what
it has read.

A family describes a decoder once, without a cache. Every layer has one counterpart in the network with one:
attention reads past keys and values and gives them grown, rotary positions are read. So costs of scenarios
follow layer by layer, see `in_scenario`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import tensor_bits
from hw_profiles.graph.layer import INPUT, Layer
from hw_profiles.graph.scenario import PAST, Scenario, bind, bind_layer
from hw_profiles.graph.shape_rules import attended, cache_format
from hw_profiles.graph.tensor_type import TensorType, bound, known
from hw_profiles.graph.workload import Feed, Workload

# what files of decoders call their inputs and outputs, after Hugging Face Optimum's
IDS, POSITIONS = "input_ids", "position_ids"
PAST_NAME, PRESENT_NAME = "past_key_values.{}.{}", "present.{}.{}"
PARTS = ("key", "value")
_REMEMBERED = 2**15


def is_cached(layer: Layer) -> bool:
    """Return whether a layer is attention that a cache serves: causal, without a mask, nothing past yet."""
    causal = layer.op == "Attention" and bool(layer.values.integer("is_causal"))
    return causal and len(layer.inputs) == len("qkv")


def cache_types(layer: Layer) -> tuple[TensorType, TensorType]:
    """Return the past keys and values (batch, heads, past, depth) that an attention reads with a cache."""
    read, kept = attended(layer.inputs, layer.values), cache_format(layer.values)
    key, value = (
        TensorType((read.batch, read.groups, PAST, depth), kept) for depth in (read.depth, read.value_depth)
    )
    return key, value


def has_past(layer: Layer) -> bool:
    """Return whether an attention reads past keys and values."""
    return attended(layer.inputs, layer.values).cached


def in_real_numbers(layer: Layer) -> Layer:
    """Return an attention as it is with a cache of real numbers."""
    past = tuple(TensorType(x.shape) for x in layer.inputs[-2:]) if has_past(layer) else ()
    attributes = tuple((name, value) for name, value in layer.attributes if name != "cache")
    inputs = (*layer.inputs[: len(layer.inputs) - len(past)], *past)
    return replace(layer, inputs=inputs, attributes=attributes)


@lru_cache(_REMEMBERED)
def cached_layer(layer: Layer) -> Layer:
    """Return the layer as it is in the network with a cache."""
    if is_cached(layer):
        return replace(layer, inputs=(*layer.inputs, *cache_types(layer)))
    if layer.op == "RotaryEmbedding" and len(layer.inputs) == 1:
        x = layer.inputs[0]
        return replace(layer, inputs=(x, TensorType((x.shape[0], x.shape[-2]), "int64")))
    return layer


@lru_cache(_REMEMBERED)
def in_scenario(layer: Layer, **sizes: int) -> Layer:
    """Return the layer as it is in the network with a cache, with dimensions of these sizes; where nothing
    has a past, as it is with these sizes.

    Raises:
        TrilobitError: the layer cannot have them, for example more positions than it tells apart.
    """
    if PAST not in sizes:
        return bind_layer(layer, sizes)
    _check_positions(layer, sizes)
    return bind_layer(cached_layer(layer), sizes)


def _check_positions(layer: Layer, sizes: Mapping[str, int]) -> None:
    if layer.op != "RotaryEmbedding":
        return
    length, end = layer.values.integer("length"), bound(layer.inputs[0].shape[-2], sizes)
    if isinstance(end, int) and sizes[PAST] + end > length:
        raise TrilobitError(
            f"{end} positions behind {sizes[PAST]} are more than the {length} that the network tells apart"
        )


def with_cache(work: Workload) -> Workload:
    """Return the network with a cache for each of its attentions, of the dimension `past`, which is open.

    It reads ids, positions and the caches' keys and values, and gives what it gave, then the grown keys and
    values. Layers keep their names, so that the same parameters run it.

    Raises:
        TrilobitError: no attention of it is causal, or it reads more than ids.
    """
    if len(work.feeds) != 1 or not any(map(is_cached, work.layers)):
        raise TrilobitError(
            "only a decoder has a key-value cache: a network that reads ids, with causal attention"
        )
    positions, layers = INPUT - 1, tuple(map(cached_layer, work.layers))
    feeds = [Feed(IDS, work.feeds[0].type), Feed(POSITIONS, work.feeds[0].type)]
    inputs, grown, moved, given = list[tuple[int, ...]](), list[int](), list[int](), 0
    for before, layer, sources in zip(work.layers, layers, work.inputs, strict=True):
        more: tuple[int, ...] = ()
        if layer.op == "Attention" and layer != before:
            place = len(grown) // len(PARTS)
            more = tuple(-1 - len(feeds) - i for i in range(len(PARTS)))
            names = (PAST_NAME.format(place, part) for part in PARTS)
            feeds += map(Feed, names, layer.inputs[-2:])
            grown += (given + 1, given + 2)
        elif layer != before:
            more = (positions,)
        inputs.append((*(moved[i] if i >= 0 else i for i in sources), *more))
        moved += range(given, given + len(before.outputs))
        given += len(layer.outputs)
    outputs = (*(moved[i] if i >= 0 else i for i in work.outputs), *grown)
    return replace(work, layers=layers, inputs=tuple(inputs), feeds=tuple(feeds), outputs=outputs)


def scenario_workload(work: Workload, scenario: Scenario) -> Workload:
    """Return what runs in a scenario of a network: with a cache where the scenario has a past.

    Raises:
        TrilobitError: the network has no such dimensions, or fewer positions.
    """
    if PAST not in scenario:
        return bind(work, scenario)
    for layer in work.layers:
        _check_positions(layer, scenario)
    return bind(with_cache(work), scenario)


def cache_bytes(layer: Layer, scenario: Scenario) -> int:
    """Return the bytes of the keys and values that a layer's cache holds at the end of a scenario, for one
    sequence; 0 of a layer without one.

    >>> from hw_profiles.graph.layer import Layer
    >>> from hw_profiles.graph.tensor_type import TensorType
    >>> text = TensorType(("batch", "sequence", 64))
    >>> heads = {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1}
    >>> cache_bytes(Layer.of("Attention", *[text] * 3, **heads, cache="int8"), {"sequence": 1, "past": 511})
    65536
    """
    if PAST not in scenario or not is_cached(layer):
        return 0
    grown = bind_layer(cached_layer(layer), {"batch": 1, **scenario}).outputs[1:]
    return sum(prod(known(dim, {}) for dim in x.shape) * tensor_bits(x.format) // 8 for x in grown)
