"""`nas inspect`: what a page says of somebody's model, and one line of what is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nas.cli.main import main

pytestmark = pytest.mark.usefixtures("confined_here")
RNG = np.random.default_rng(0)
node = helper.make_node


def written(
    folder: Path, nodes: list[Any], inputs: dict[str, tuple[int, list[Any]]], **stored: NDArray[Any]
) -> str:
    """The path of an ONNX file that gives `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return str(path)


def weights(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(0, 0.1, shape).astype(np.float32)


def quantized(folder: Path) -> str:
    """A convolution on codes, and one in fp32 behind it."""
    return written(
        folder,
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            node("Conv", ["d", "wd"], ["c"], "first", kernel_shape=[1, 1]),
            node("Conv", ["c", "w2"], ["y"], "second", kernel_shape=[1, 1]),
        ],
        {"x": (TensorProto.FLOAT, ["n", 3, 8, "width"])},
        s=np.float32(0.02),
        z=np.uint8(128),
        w=RNG.integers(-127, 127, (16, 3, 1, 1)).astype(np.int8),
        ws=np.full(16, 0.01, np.float32),
        wz=np.zeros(16, np.int8),
        w2=weights(16, 16, 1, 1),
    )


def test_a_page_says_what_can_be_changed_and_what_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = quantized(tmp_path)
    assert main(["inspect", path, "--shape", "x=1x3x8x8", "--units"]) == 0
    page = capsys.readouterr().out
    for text in ("n x 3 x 8 x width", "second", "is quantized already", "still in fp32: 1 Conv 1x1 (second)"):
        assert text in page
    example = tmp_path / "example.npz"
    np.savez(example, x=RNG.normal(size=(1, 3, 8, 8)).astype(np.float32))
    assert main(["inspect", path, "--inputs", str(example), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bound"] == {"n": 1, "width": 8}
    assert document["macs"] == 64 * 16 * 3 + 64 * 16 * 16
    formats = {unit["name"]: unit["formats"] for unit in document["units"]}
    assert formats["first"] == ["fp32"]
    assert "int8" in formats["second"]


def test_without_sizes_it_says_what_it_can_and_what_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", quantized(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "width of input x" in page
    assert "--shape x=1x3x8x?" in page


def test_a_tune_without_data_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = quantized(tmp_path)
    line = ["tune", path, "--shape", "x=1x3x8x8", "-o", str(tmp_path / "run"), "--formats", "int8"]
    assert main(line) == 2
    printed = capsys.readouterr()
    assert "no data: give examples" in printed.err
    assert "still in fp32" in printed.out
    assert "a tune takes about" in printed.out
    assert "needs: x: a folder or archive of images" in printed.out
    assert f"then: nas tune {path} --data photos/" in printed.out


def test_a_tune_of_what_gives_no_numbers_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(
        tmp_path,
        [node("MatMul", ["x", "w"], ["m"]), node("Mul", ["m", "far"], ["l"]), node("Sub", ["l", "l"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 4])},
        w=weights(4, 8),
        far=np.float32(np.inf),
    )
    data = tmp_path / "x.npz"
    np.savez(data, x=np.abs(RNG.normal(size=(40, 4))).astype(np.float32))
    assert main(["tune", path, "--data", str(data), "-o", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err
    assert "gives NaN or infinity in y" in line


def test_what_is_no_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    custom = [node("Magic", ["x"], ["y"], domain="my.ops")]
    text = {"x": (TensorProto.STRING, [1])}
    (tmp_path / "photo.onnx").write_bytes(b"\x89PNG\r\n" * 40)
    (tmp_path / "net.pt").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "net.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    lines = {
        str(tmp_path / "net.pt"): "as PyTorch and Keras write models; export it with torch.onnx.export",
        str(tmp_path / "net.tflite"): "it is a TensorFlow Lite model; convert it",
        str(tmp_path / "pointer.onnx"): "it is a pointer of Git LFS",
        str(tmp_path): "is a folder; give the .onnx file in it: photo.onnx",
        str(tmp_path / "photo.onnx"): "not an ONNX file",
        str(tmp_path / "none.onnx"): "there is no such file",
        written(_made(tmp_path / "custom"), custom, {"x": (TensorProto.FLOAT, [1])}): "my.ops.Magic",
        written(_made(tmp_path / "text"), [node("Identity", ["x"], ["y"])], text): "input 'x' is text",
    }
    for path, said in lines.items():
        assert main(["inspect", path]) == 2
        line = capsys.readouterr().err
        assert said in line
        assert line.count("\n") == 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_images_are_offered_to_what_may_read_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not to sound, to states, or to one of several inputs."""
    shapes = {
        (1, 3, 32, 32): True,
        (1, 32, 32, 1): True,
        (3, 32, 32): True,
        (1, 400, 1): False,
        (4, 1, 64): False,
        (1, 3, 2, 50): False,
    }
    for shape, images in shapes.items():
        relu = [node("Relu", ["x"], ["y"])]
        assert main(["inspect", written(tmp_path, relu, {"x": (TensorProto.FLOAT, [*shape])})]) == 0
        page = capsys.readouterr().out
        assert ("folder or archive of images" in page) is images, shape
        assert "nothing in it can be tuned on ort: no unit multiplies with stored numbers" in page
        assert "then:" not in page
    both = {name: (TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "z")}
    assert main(["inspect", written(tmp_path, [node("Add", ["x", "z"], ["y"])], both)]) == 0
    assert "folder or archive" not in capsys.readouterr().out


def test_a_product_of_codes_is_said_to_be_quantized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", quantized(tmp_path), "--shape", "x=1x3x8x8"]) == 0
    page = capsys.readouterr().out
    [line] = [line for line in page.splitlines() if line.startswith("no int8") and "1 Conv:" in line]
    assert line.endswith("is quantized already")
    assert "nothing computes Conv" not in page


def test_an_output_that_is_no_array_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, [node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [1, 3])})
    proto = onnx.load(path)
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    entry = helper.make_map_type_proto(TensorProto.INT64, number)
    proto.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(entry))
    onnx.save(proto, path)
    assert main(["inspect", path]) == 2
    assert "output 'y' is a dictionary" in capsys.readouterr().err
