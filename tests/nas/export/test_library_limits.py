"""What a library has no kernel for is named, with what comes nearest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload, single
from hw_profiles.runtimes.tvm_cpu.templates import is_supported
from nas.export.library.limits import nearest_formats, require_kernels, why_not
from supernet.families.family import Family, load_family

SHAPE = (16, 8, 8)


def conv(weights: str, activations: str, activation: str = "relu") -> Layer:
    return map_layer(
        "conv", SHAPE, 16, 1, activation=activation, weight_format=weights, activation_format=activations
    )


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (("fp16", "fp16"), ("fp32", "fp32")),
        (("int4", "int4"), ("int4", "int8")),
        (("int8", "int6"), ("int8", "int8")),
        (("int2", "int6"), ("int2", "int8")),
    ],
)
def test_the_nearest_formats_have_a_kernel(asked: tuple[str, str], offered: tuple[str, str]) -> None:
    found = nearest_formats(conv(*asked))
    assert found == conv(*offered)


formats = st.sampled_from(
    [("fp32", "fp32"), ("int8", "int8"), ("int6", "int8"), ("int4", "int8"), ("int2", "int8")]
)


@given(formats)
def test_what_has_a_kernel_is_its_own_nearest(pair: tuple[str, str]) -> None:
    assert is_supported(conv(*pair))
    assert nearest_formats(conv(*pair)) == conv(*pair)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (conv("fp16", "fp16"), "no conv with relu (fp16 weights, fp16 activations)"),
        (conv("fp16", "fp16"), "the nearest they run is conv with relu (fp32 weights, fp32 activations)"),
        (conv("int8", "int8", "hswish"), "of activation functions they run none and relu and relu6"),
        (
            map_layer("act", SHAPE, 16, activation="hswish"),
            "no act with hswish (fp32 activations); of activation functions they run none and relu",
        ),
    ],
)
def test_a_layer_without_a_kernel_is_named(layer: Layer, said: str) -> None:
    why = why_not(Workload(("s0.b0",), (layer,), single(layer).inputs, layer.in_format))
    assert why is not None
    assert why.startswith("s0.b0: TVM's kernels have ")
    assert said in why


@pytest.fixture(scope="module")
def half() -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32", "fp16"))


def test_the_network_most_like_it_is_offered(half: Family) -> None:
    corners, space = half.extremes(), half.space()
    names = ("largest/fp16", "largest/fp32", "smallest/fp32")
    front = {name: (corners[name].genes, lower(half.workload(corners[name]))) for name in names}
    require_kernels(names[1:], front)
    with pytest.raises(TrilobitError, match=r"fp16 activations.*--pick largest/fp32 comes nearest") as raised:
        require_kernels(names, front)
    differ = int((np.array(corners["largest/fp16"].genes) != np.array(corners["largest/fp32"].genes)).sum())
    assert f"({differ} of {len(space.choices)} choices differ)" in str(raised.value)
    alone = {names[0]: front[names[0]]}
    with pytest.raises(TrilobitError, match="no network of the front has kernels for all its layers"):
        require_kernels(names[:1], alone)
