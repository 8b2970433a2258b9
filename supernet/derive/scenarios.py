"""A traced decoder in one scenario: with a cache, and of known sizes."""

from dataclasses import replace
from typing import Any

from hw_profiles.graph.cache import in_scenario
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.scenario import Scenario
from hw_profiles.graph.tensor_type import bound
from supernet.derive.trace import Shape, Trace
from supernet.space.varying import lift


def scenario_trace(trace: Trace, scenario: Scenario) -> Trace:
    """Return the layers of a decoder for texts of any length as they are in a scenario. What a cache holds is
    none of the tensors between them.
    """

    def layer(spec: Layer) -> Layer:
        return in_scenario(spec, **scenario)

    def dims(shape: Shape) -> Shape:
        return tuple(bound(dim, scenario) for dim in shape)

    layers = [replace(traced, spec=lift(layer, traced.spec)) for traced in trace.layers]
    shapes: dict[int, Any] = {position: lift(dims, shape) for position, shape in trace.shapes.items()}
    return replace(trace, layers=layers, shapes=shapes)
