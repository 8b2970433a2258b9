"""Inputs that are fixed to one value: the branch that it decides is what is left, and the function for that
value stays as it was.
"""

import numpy as np
import onnx
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.data.array_samples import array_samples
from supernet.imported.fixed_value import fixed_text, parse_fixed
from supernet.imported.fixing import agreed, deciding_inputs
from supernet.imported.import_onnx import import_onnx
from supernet.imported.input_specs import input_specs
from supernet.imported.onnx_file import graph_of, read_onnx
from tests.supernet.imported.branching import RATES, branching

RNG = np.random.default_rng(0)
SHAPES = {"x": (1, 1, 32)}
SINGLE = [(), (1,), (1, 1)]


def scores(content: bytes, x: np.ndarray, rate: int, shape: tuple[int, ...]) -> np.ndarray:
    executable = host_runtime().compile(Artifact(content))
    return np.asarray(executable.run({"x": x, "sr": np.full(shape, rate)})["scores"])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", SINGLE)
def test_the_branch_that_a_value_decides_is_what_is_left(rate: int, shape: tuple[int, ...]) -> None:
    content = branching(shape)
    model = import_onnx(content, shapes=SHAPES, fixed={"sr": rate})
    assert "If" not in {unit.op for unit in model.units}
    assert [unit.op for unit in model.units if unit.weighted] == ["Conv", "MatMul"]
    assert model.inputs == ("x", "sr")
    assert model.fixed == {"sr": rate}
    for length in (32, 48):  # what was open is open
        x = RNG.normal(size=(2, 1, length)).astype(np.float32)
        expected = scores(content, x, rate, shape)
        for given in RATES:  # it is not read any more
            np.testing.assert_allclose(scores(model.content, x, given, shape), expected, rtol=1e-4, atol=1e-6)


def test_what_is_not_fixed_stays_in_its_branch() -> None:
    model = import_onnx(branching(), shapes=SHAPES)
    assert [unit.op for unit in model.units if unit.weighted] == ["MatMul"]
    assert not model.fixed


def test_only_inputs_that_decide_by_themselves_are_found() -> None:
    assert deciding_inputs(graph_of(read_onnx(branching()))) == ("sr",)
    assert input_specs(branching()).deciding == ("sr",)
    assert input_specs(branching(), {"sr": 8000}).deciding == ()
    proto = onnx.load_model_from_string(branching())
    mixed = onnx.helper.make_node("Add", ["sr", "least"], ["sum"])
    least = onnx.helper.make_node("Cast", ["minimum"], ["least"], to=7)
    minimum = onnx.helper.make_node("ReduceMin", ["x"], ["minimum"], keepdims=0)
    proto.graph.node[0].input[0] = "sum"
    for each in (mixed, least, minimum):
        proto.graph.node.insert(0, each)
    assert deciding_inputs(graph_of(proto)) == ()


def test_what_examples_agree_on_is_found() -> None:
    rows = {"sr": np.full((9, 1), 8000), "on": np.zeros((9,), bool), "other": np.arange(9)}
    assert agreed(("sr", "on", "other"), rows) == {"sr": 8000, "on": False}
    assert {
        name: parse_fixed(fixed_text(name, value)) for name, value in agreed(("sr", "on"), rows).items()
    } == {
        "sr": ("sr", 8000),
        "on": ("on", False),
    }


def test_what_cannot_be_fixed_is_said() -> None:
    refused = {
        "rate": (1, "has no input 'rate'"),
        "x": (1, "only single numbers can be fixed"),
        "sr": (0.5, "sr is int64, which cannot be 0.5"),
    }
    for name, (value, said) in refused.items():
        with pytest.raises(TrilobitError, match=said):
            import_onnx(branching(), shapes=SHAPES, fixed={name: value})
    example = {"x": np.ones((1, 1, 32), np.float32), "sr": np.array(8000)}
    with pytest.raises(TrilobitError, match="--fix sr=16000, but the examples have sr = 8000"):
        import_onnx(branching(), shapes=SHAPES, feeds=example, fixed={"sr": 16000})
    for text in ("sr", "sr=", "sr=fast", "=3", "sr=nan", "sr=1e999"):
        with pytest.raises(TrilobitError, match="INPUT=NUMBER"):
            parse_fixed(text)


@pytest.mark.parametrize("shape", SINGLE)
def test_examples_need_no_array_of_what_is_fixed(shape: tuple[int, ...]) -> None:
    specs = input_specs(branching(shape), {"sr": 16000}).specs
    x = RNG.normal(size=(9, 1, 32)).astype(np.float32)
    for arrays in ({"": x}, {"x": x}, {"x": x, "sr": np.full((9, *shape), 16000)}):
        samples = array_samples("data", arrays, specs)
        assert samples.feed(3)["sr"].shape == shape
        assert (samples.inputs["sr"] == 16000).all()
        assert len(samples) == len(samples.inputs["sr"]) == 9
    with pytest.raises(TrilobitError, match="input sr is 8000 in some examples, and is fixed to 16000"):
        array_samples("data", {"x": x, "sr": np.full((9, *shape), 8000)}, specs)
