"""Scenarios: sizes of the dimensions that a network leaves open, without which nothing can be measured."""

from collections.abc import Mapping
from dataclasses import replace

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.attributes import Value
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType, bound
from hw_profiles.graph.workload import Feed, Workload

PREFILL, DECODE = "prefill", "decode"
PROMPT_LENGTH, PAST_LENGTH = 128, 511  # that a decoder is asked for unless told otherwise, at most
Scenario = Mapping[str, int]  # symbol -> size, for example {"batch": 1, "sequence": 128, "past": 0}
SEQUENCE, PAST = "sequence", "past"  # positions that a decoder reads at once, and that it has read before


def prefill(sequence: int) -> Scenario:
    """Return a decoder's first inference: a prompt of so many positions, with nothing before it.

    >>> prefill(128)
    {'sequence': 128, 'past': 0}
    """
    return {SEQUENCE: sequence, PAST: 0}


def decode(past: int) -> Scenario:
    """Return a decoder's next inference: one position behind `past` others.

    >>> decode(511)
    {'sequence': 1, 'past': 511}
    """
    return {SEQUENCE: 1, PAST: past}


def decoder_scenarios(positions: int, prompt: int = 0, past: int = 0) -> Mapping[str, Scenario]:
    """Return what a decoder of so many positions is asked for, by name; nothing of one that has none.

    Args:
        prompt: positions of `prefill`; 0 takes 128, or half of what there is.
        past: positions before `decode`; 0 takes 511, or half of what there is.

    >>> decoder_scenarios(256, past=200)
    {'prefill': {'sequence': 128, 'past': 0}, 'decode': {'sequence': 1, 'past': 200}}

    Raises:
        TrilobitError: there are fewer positions than that.
    """
    if not positions:
        return {}
    prompt, past = prompt or min(PROMPT_LENGTH, positions // 2), past or min(PAST_LENGTH, positions // 2)
    if not 1 <= prompt <= positions:
        raise TrilobitError(
            f"a prompt of {prompt} positions: the network tells {positions} apart; ask for 1 to {positions}"
        )
    if not 0 <= past < positions:
        raise TrilobitError(
            f"a position behind {past} others: the network tells {positions} apart; ask for 0 to "
            f"{positions - 1}"
        )
    return {PREFILL: prefill(prompt), DECODE: decode(past)}


def bind(workload: Workload, scenario: Scenario) -> Workload:
    """Return the network with every dimension of these sizes.

    Raises:
        TrilobitError: a size is negative, the network has no such dimension, or a layer cannot have it.
    """
    for symbol, size in scenario.items():
        if symbol not in workload.symbols:
            symbols = ", ".join(sorted(workload.symbols)) or "none, all have sizes"
            raise TrilobitError(f"the network has no open dimension {symbol!r}; it has: {symbols}")
        if size < 0:
            raise TrilobitError(f"{symbol} = {size}: a size cannot be negative")
    layers = tuple(bind_layer(layer, scenario) for layer in workload.layers)
    feeds = tuple(Feed(name, _bound(x, scenario)) for name, x in workload.feeds)
    return replace(workload, layers=layers, feeds=feeds)


def bind_layer(layer: Layer, scenario: Scenario) -> Layer:
    """Return the layer with every dimension of these sizes."""
    inputs = tuple(_bound(x, scenario) for x in layer.inputs)
    attributes = tuple((name, _bound_value(name, value, scenario)) for name, value in layer.attributes)
    return replace(layer, inputs=inputs, attributes=attributes)


def _bound(x: TensorType, scenario: Scenario) -> TensorType:
    return TensorType(tuple(bound(dim, scenario) for dim in x.shape), x.format)


def _bound_value(name: str, value: Value, scenario: Scenario) -> Value:
    if not isinstance(value, tuple):
        return value
    if name == "outputs":
        return tuple(_bound(x, scenario) for x in value if isinstance(x, TensorType))
    return tuple(bound(dim, scenario) for dim in value if not isinstance(dim, TensorType))
