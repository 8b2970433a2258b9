"""Operations of transformers: torch, ONNX's reference, and both forms of files give the same numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.runtimes.ort.runtime import optimised_ops
from nas.emit.to_onnx import emit
from supernet.graph.operations import Constants, computed
from supernet.graph.quantized_graph import QuantizedGraph
from tests.contracts.operation_parity import IDS, agree, network, numbers, x

ALONE: Mapping[str, QuantizedGraph] = {
    "rms": network(x(2, 3, 8), op="RMSNormalization", weight=(8,), epsilon=1e-3),
    "rms of two": network(x(2, 3, 8), op="RMSNormalization", weight=(3, 8), axis=1),
    "silu": network(x(2, 5), op="Swish"),
    "swish": network(x(2, 5), op="Swish", alpha=1.7),
    "embedding": network(x(2, 3, fmt=IDS), op="Gather", weight=(7, 4)),
    "embedding of 8 bits": network(x(2, 3, fmt=IDS), op="Gather", weight=(7, 4), weight_format="int8"),
    "embedding in groups": network(x(2, 3, fmt=IDS), op="Gather", weight=(7, 64), weight_format="int4-g32"),
    "embedding in a group that is not full": network(
        x(2, fmt=IDS), op="Gather", weight=(7, 40), weight_format="int2-g128"
    ),
    "embedding by int32": network(x(2, 3, fmt="int32"), op="Gather", weight=(7, 4)),
    "first": network(x(2, 3, 4), op="Gather", axis=1, indices=0),
    "last": network(x(2, 3, 4), op="Gather", axis=-2, indices=-1),
    "chosen": network(x(2, 3, 4), op="Gather", axis=-1, indices=(3, 1)),
    "slice": network(x(4, 9), op="Slice", starts=(1, 2), ends=(3, 100), axes=(0, -1), steps=(1, 3)),
    "backwards": network(x(4, 9), op="Slice", starts=(-1,), ends=(-100,), axes=(1,), steps=(-2,)),
    "expand": network(x(3, 1), op="Expand", shape=(2, 1, 4)),
    "less": network(x(2, 3, fmt=IDS), op="Less", value=1),
    "where": network(x(2, 1, fmt=IDS), x(2, 3), op="Where", value=-5.0),
    "where of two": network(x(3, fmt="bool"), x(2, 3), x(2, 1), op="Where"),
}


@pytest.mark.parametrize("name", ALONE)
def test_files_and_the_reference_give_what_torch_gives(name: str) -> None:
    agree(ALONE[name], numbers(ALONE[name].workload, below=2))


@pytest.mark.parametrize("name", ALONE)
def test_keys_say_what_layers_are(name: str) -> None:
    (layer,) = ALONE[name].workload.layers
    assert parse_key(layer.key()) == layer


def test_normalised_by_the_root_of_the_mean_square() -> None:
    layer = Layer.of("RMSNormalization", x(2, 8), weight=(8,))
    values, weight = torch.randn(2, 8), torch.randn(8)
    (y,) = computed(layer, [values], Constants(weight))
    by_hand = values / torch.sqrt((values**2).mean(1, keepdim=True) + 1e-5) * weight
    np.testing.assert_allclose(y, by_hand, atol=1e-5)
    assert params(layer) == 8


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)),
    interleaved=st.booleans(),
    by_heads=st.booleans(),
    part=st.booleans(),
    read=st.sampled_from(("", "batch", "one")),
    start=st.integers(0, 5),
)
def test_rotary_positions_agree_over_shapes(
    shape: tuple[int, int, int, int], interleaved: bool, by_heads: bool, part: bool, read: str, start: int
) -> None:
    batch, sequence, heads, pairs = shape
    of = x(batch, heads, sequence, 2 * pairs) if by_heads else x(batch, sequence, heads * 2 * pairs)
    positions = {"": [], "batch": [x(batch, sequence, fmt=IDS)], "one": [x(1, sequence, fmt=IDS)]}[read]
    net = network(
        of,
        *positions,
        op="RotaryEmbedding",
        num_heads=heads,
        interleaved=int(interleaved),
        rotary_embedding_dim=2 * ((pairs + 1) // 2) if part else 0,
        theta=100.0,
        length=10,
        start=None if read else (start,),
    )
    agree(net, numbers(net.workload, below=10), reference=not part)


def test_a_position_turns_pairs_as_complex_numbers() -> None:
    layer = Layer.of("RotaryEmbedding", x(1, 5, 8), num_heads=2, interleaved=1, start=(3,), theta=50.0)
    values = torch.randn(1, 5, 8)
    (y,) = computed(layer, [values])
    pairs = torch.view_as_complex(values.view(1, 5, 2, 2, 2))
    frequencies = 50.0 ** (-torch.arange(2) / 2)
    angles = torch.outer(torch.arange(3.0, 8.0), frequencies)[None, :, None]
    turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).reshape(1, 5, 8)
    np.testing.assert_allclose(y, turned, atol=1e-5)


ATTENTION = {
    "batch": st.integers(1, 2),
    "queries": st.integers(1, 4),
    "keys": st.integers(1, 4),
    "groups": st.integers(1, 2),
    "times": st.integers(1, 3),
    "depth": st.integers(1, 4),
    "value_depth": st.integers(1, 4),
    "past": st.sampled_from((None, 0, 1, 3)),
    "causal": st.booleans(),
    "mask": st.sampled_from(("", "real", "whole", "heads")),
    "by_heads": st.booleans(),
    "scale": st.sampled_from((None, 0.3)),
    "present": st.booleans(),
}


def attention_of(
    *,
    batch: int,
    queries: int,
    keys: int,
    groups: int,
    times: int,
    depth: int,
    value_depth: int,
    past: int | None,
    causal: bool,
    mask: str,
    by_heads: bool,
    scale: float | None,
    present: bool,
) -> QuantizedGraph:
    heads = groups * times
    keys = queries if past is not None or causal else keys
    sizes = ((queries, heads, depth), (keys, groups, depth), (keys, groups, value_depth))
    feeds = [x(batch, n, length, d) if by_heads else x(batch, length, n * d) for length, n, d in sizes]
    total = keys + (past or 0)
    masks = {
        "real": x(queries, total),
        "whole": x(batch, 1, 1, total, fmt=IDS),
        "heads": x(batch, heads, queries, total),
    }
    feeds += [masks[mask]] if mask else []
    feeds += [] if past is None else [x(batch, groups, past, depth), x(batch, groups, past, value_depth)]
    return network(
        *feeds,
        op="Attention",
        q_num_heads=heads,
        kv_num_heads=groups,
        is_causal=int(causal),
        scale=scale,
        present=int(present),
    )


@given(case=st.fixed_dictionaries(ATTENTION))
def test_attention_agrees_over_shapes(case: dict[str, Any]) -> None:
    net = attention_of(**case)
    feeds = numbers(net.workload)
    if case["mask"] == "whole":
        feeds["x3"][...] |= 1 - feeds["x3"].any(-1, keepdims=True)  # something can be attended to
        feeds["x3"][..., 0] = 1  # by the first position, too
    agree(net, feeds, reference=False)


def test_attention_is_that_of_torch_with_repeated_keys() -> None:
    layer = Layer.of(
        "Attention", *(x(2, 5, 4 * n) for n in (6, 2, 2)), q_num_heads=6, kv_num_heads=2, is_causal=1
    )
    tensors = [torch.randn(2, 5, 4 * n) for n in (6, 2, 2)]
    (y,) = computed(layer, tensors)
    q, k, v = (t.view(2, 5, -1, 4).transpose(1, 2) for t in tensors)
    k, v = (t.repeat_interleave(3, 1) for t in (k, v))
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    np.testing.assert_allclose(y, (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, -1), atol=1e-5)
    np.testing.assert_allclose(
        y, F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2), atol=1e-5
    )
    assert macs(layer) == 2 * 2 * 6 * 5 * 5 * 4


@pytest.mark.parametrize(
    ("op", "feeds", "attributes", "message"),
    [
        (
            "Attention",
            (x(1, 3, 8), x(1, 3, 6), x(1, 3, 6)),
            {"q_num_heads": 2, "kv_num_heads": 2},
            "do not fit",
        ),
        ("Attention", (x(1, 3, 8),) * 3, {"q_num_heads": 3, "kv_num_heads": 1}, "cannot be divided"),
        ("Attention", (x(1, 3, 8),) * 3, {}, "number of heads"),
        ("RotaryEmbedding", (x(1, 3, 6),), {"num_heads": 2}, "pairs"),
        ("RotaryEmbedding", (x(1, 3, 8),), {"num_heads": 2, "length": 2}, "more than the length 2"),
        ("RotaryEmbedding", (x(1, 3, 8), x(1, 3)), {"num_heads": 2}, "whole numbers"),
        ("Gather", (x(1, 3),), {"weight": (7, 2)}, "ids must be whole numbers"),
        ("Gather", (x(1, 3),), {"axis": 1, "indices": 3}, "no place"),
        ("Gather", (x(1, 3),), {}, "stored indices"),
        ("Less", (x(3),), {"value": 1}, "must be whole numbers"),
        ("Where", (x(3), x(3)), {"value": 0.0}, "must be whole numbers"),
        ("Slice", (x("batch", 3),), {"starts": (0,), "ends": (1,), "axes": (0,)}, "bind it"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    op: str, feeds: tuple[TensorType, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrilobitError, match=message):
        Layer.of(op, *feeds, **attributes)


@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    repeated=st.lists(st.booleans(), min_size=2, max_size=2),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    stored=st.booleans(),
    bias=st.booleans(),
)
def test_matrix_products_of_any_rank_agree(
    batch: list[int], repeated: list[bool], sizes: tuple[int, int, int], stored: bool, bias: bool
) -> None:
    rows, inner, columns = sizes
    left = x(*(1 if once else size for size, once in zip(batch, repeated, strict=False)), rows, inner)
    right = (*batch[-1:], inner, columns) if not stored or len(batch) > 1 else (inner, columns)
    if stored:
        net = network(left, op="MatMul", weight=right, bias=int(bias))
    else:
        net = network(left, x(*right), op="MatMul")
    agree(net, numbers(net.workload))


def test_of_a_table_in_groups_only_the_rows_that_are_read_become_real() -> None:
    net = network(x("batch", "sequence", fmt=IDS), op="Gather", weight=(50, 64), weight_format="int4-g32")
    file = emit(net, batch=None)
    kernels = optimised_ops(file)
    assert kernels["Gather"] == 2  # codes and scales
    assert not kernels["DequantizeLinear"]
    assert len(file) < 50 * 64
