"""Peak memory against small cases by hand and against sets of living tensors, on random graphs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.memory import peak_bytes, tensor_bytes
from hw_profiles.graph.workload import Workload, single

SIZE = 4
FORMATS = ("fp32", "int8")


@pytest.mark.parametrize(
    ("shape", "fmt", "expected"),
    [
        ((8, 14, 14), "fp32", 6272),
        ((8, 14, 14), "fp16", 3136),
        ((8, 14, 14), "int8", 1568),
        ((3, 1, 1), "int4", 2),
        ((5, 1, 1), "int2", 2),
        ((3, 1, 1), "int6", 3),
    ],
)
def test_tensors_are_packed_and_rounded_up_to_bytes(
    shape: tuple[int, int, int], fmt: str, expected: int
) -> None:
    assert tensor_bytes(shape, fmt) == expected


def test_only_formats_that_tensors_can_have_have_bytes() -> None:
    with pytest.raises(TrilobitError, match="unknown format 'int0'; known"):
        tensor_bytes((1, 1, 1), "int0")
    with pytest.raises(TrilobitError, match="int8-exact is a number format of weights only"):
        tensor_bytes((1, 1, 1), "int8-exact")


def test_a_layer_needs_its_input_and_its_output() -> None:
    assert peak_bytes(single(map_layer("conv", (2, 4, 4), 3))) == (2 + 3) * 16 * 4
    assert peak_bytes(single(map_layer("add", (2, 4, 4), 2))) == (2 + 2) * 16 * 4
    assert peak_bytes(single(map_layer("quantize", (2, 4, 4), 2, activation_format="int8"))) == 2 * 16 * 5


def test_a_chain_forgets_what_nobody_reads_any_more() -> None:
    net = WorkloadBuilder((1, 4, 4))
    x = net.add("a", map_layer("conv", (1, 4, 4), 8), INPUT)
    x = net.add("b", map_layer("conv", (8, 4, 4), 2), x)
    net.add("c", map_layer("conv", (2, 4, 4), 4), x)
    assert peak_bytes(net.build()) == (8 + 2) * 64  # not the input, not the last


def test_a_shortcut_stays_alive_across_its_branch() -> None:
    net = WorkloadBuilder((4, 4, 4))
    x = net.add("a", map_layer("conv", (4, 4, 4), 8), INPUT)
    x = net.add("b", map_layer("conv", (8, 4, 4), 4), x)
    net.add("sum", map_layer("add", (4, 4, 4), 4), x, INPUT)
    assert peak_bytes(net.build()) == (4 + 8 + 4) * 64


def test_a_converted_shortcut_replaces_the_tensor_it_was_made_of() -> None:
    net = WorkloadBuilder((4, 4, 4))
    formats = ("int8", "int8")
    x = net.add("a", map_layer("conv", (4, 4, 4), 32, 1, 1, 1, "none", *formats), INPUT)
    x = net.add("b", map_layer("conv", (32, 4, 4), 4, 1, 1, 1, "none", *formats), x)
    net.add("sum", map_layer("add_converted", (4, 4, 4), 4, activation_format="int8"), x, INPUT)
    assert peak_bytes(net.build()) == (4 + 32 + 4) * 16


def test_an_output_that_nobody_reads_counts_while_it_is_written() -> None:
    conv = map_layer("conv", (1, 4, 4), 16)
    ends = (map_layer("conv", (1, 4, 4), 1), map_layer("conv", (1, 4, 4), 1))
    work = Workload(("unread", "b", "c"), (conv, *ends), ((INPUT,), (INPUT,), (1,)))
    assert peak_bytes(work) == (1 + 16) * 64


@st.composite
def graphs(draw: st.DrawFn) -> Workload:
    """Convolutions and sums that read any earlier tensors, in mixed formats, with their conversions."""
    net = WorkloadBuilder((draw(st.integers(1, 3)), SIZE, SIZE))
    tensors = [INPUT]
    for position in range(draw(st.integers(1, 9))):
        x, fmt = draw(st.sampled_from(tensors)), draw(st.sampled_from(FORMATS))
        shape = net.shape(x)
        twins = [t for t in tensors if net.shape(t) == shape]
        if draw(st.booleans()):
            layer = map_layer("add", shape, shape[0], activation_format=fmt)
            tensors.append(net.add(f"l{position}", layer, x, draw(st.sampled_from(twins))))
        else:
            layer = map_layer("conv", shape, draw(st.integers(1, 5)), 3, 1, 1, "relu", fmt, fmt)
            tensors.append(net.add(f"l{position}", layer, x))
    return net.build()


def brute_force(work: Workload) -> int:
    """The largest set of tensors that exist and are still wanted, layer by layer."""

    def size(tensor: int) -> int:
        if tensor == INPUT:
            return tensor_bytes(work.in_shape, work.in_format)
        return tensor_bytes(work.layers[tensor].out_shape, work.layers[tensor].out_format)

    peaks = []
    for now in range(len(work.layers)):
        live_tensors = {source for read in work.inputs[now:] for source in read if source < now}
        peaks.append(sum(map(size, live_tensors | {now})))
    return max(peaks)


@given(graphs())
def test_the_peak_is_the_largest_set_of_living_tensors(work: Workload) -> None:
    assert peak_bytes(work) == brute_force(work)
