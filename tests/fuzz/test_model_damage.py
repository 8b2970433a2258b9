"""ONNX files with damage of any kind, and hostile ones: read, or refused in one line. Nothing outside the
folder is read, and nothing takes for ever.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from hw_profiles.errors import TrilobitError
from nas.checks.confined import Limits
from nas.checks.open_model import open_model
from supernet.imported.import_onnx import import_onnx
from tests.fuzz.mutations import Attempt, damaged_bytes, require_sound, try_out

FEW, COUNT = 40, 1_000
RNG = np.random.default_rng(3)
FLOAT = TensorProto.FLOAT
node = helper.make_node


def network(nodes: list[Any], **stored: Any) -> onnx.ModelProto:
    """A network that reads `x` (n, 4) and gives `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def ordinary() -> onnx.ModelProto:
    """Shape arithmetic, control flow that reads tensors outside, products."""
    inner = [node("MatMul", ["m", "w"], ["t"]), node("Add", ["t", "x"], ["u"])]
    then = helper.make_graph(inner, "then", [], [helper.make_tensor_value_info("u", FLOAT, None)])
    other = [node("Relu", ["m"], ["v"])]
    otherwise = helper.make_graph(other, "else", [], [helper.make_tensor_value_info("v", FLOAT, None)])
    return network(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Shape", ["m"], ["s"]),
            node("Concat", ["s", "one"], ["s3"], axis=0),
            node("Reshape", ["m", "s3"], ["r"]),
            node("ReduceSum", ["r"], ["sum"], keepdims=0),
            node("Greater", ["sum", "zero"], ["c"]),
            node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise),
        ],
        w=RNG.normal(size=(4, 4)).astype(np.float32),
        one=np.array([1]),
        zero=np.float32(0),
    )


def attempts(content: bytes, count: int) -> Iterator[Attempt]:
    for mutation in damaged_bytes(content, count=count, rng=np.random.default_rng(17)):
        data = mutation.data
        yield try_out(mutation.how, lambda data=data: import_onnx(data))  # type: ignore[misc]


def test_some_damage_is_read_or_refused_in_one_line() -> None:
    require_sound(attempts(ordinary().SerializeToString(), FEW))


@pytest.mark.slow
def test_any_damage_is_read_or_refused_in_one_line() -> None:
    counts = require_sound(attempts(ordinary().SerializeToString(), COUNT))
    assert min(counts.values()) > COUNT // 20


def with_weights_in(location: str) -> bytes:
    model = ordinary()
    external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    content: bytes = model.SerializeToString()
    return content


def test_weights_are_read_from_the_folder_of_the_file_only(tmp_path: Path) -> None:
    weights = RNG.normal(size=(4, 4)).astype(np.float32).tobytes()
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(weights)
    (folder / "weights.bin").write_bytes(weights)
    (folder / "half.bin").write_bytes(weights[:20])
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "net.onnx"
    path.write_bytes(with_weights_in("weights.bin"))
    assert import_onnx(path).constants
    refused = {
        "../secret.bin": "outside the folder",
        str(tmp_path / "secret.bin"): "outside the folder",
        "link.bin": "outside the folder",
        "": "outside the folder",
        "none.bin": "which is missing",
        "half.bin": "is not whole",
    }
    for location, said in refused.items():
        path.write_bytes(with_weights_in(location))
        with pytest.raises(TrilobitError, match=said):
            import_onnx(path)
    with pytest.raises(TrilobitError, match="give the path"):
        import_onnx(with_weights_in("weights.bin"))


def test_what_takes_for_ever_or_all_memory_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall_s = {"endless": 1.0, "vast": 3.0}
    body = helper.make_graph(
        [node("Identity", ["going"], ["go_on"]), node("Identity", ["state"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, None),
        ],
    )
    hostile = {
        "endless": network([node("Loop", ["", "yes", "x"], ["y"], body=body)], yes=np.array(True)),
        "vast": network(
            [node("ConstantOfShape", ["vast"], ["c"]), node("Add", ["x", "c"], ["y"])],
            vast=np.array([2**20, 2**20, 4]),
        ),
    }
    for name, model in hostile.items():
        limit_s = wall_s[name]
        monkeypatch.setattr(
            "nas.checks.open_model.Limits", lambda _, memory, limit_s=limit_s: Limits(limit_s, memory)
        )
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        attempt = try_out(name, lambda path=path: open_model(path), limit_s=60)  # type: ignore[misc]
        assert attempt.is_sound, attempt
        assert name != "endless" or "no end after" in attempt.said
