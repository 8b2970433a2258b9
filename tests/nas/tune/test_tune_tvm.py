"""`nas tune --device tvm`: from a file to libraries that are timed beside it, exported and verified."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

from nas.cli.main import main
from nas.export.manifests import read_any
from nas.export.tuned_manifest import TunedManifest
from nas.verification.verification import Checks, verify
from tests.nas.export.test_policy_library import images, residual

SMALL = ("--budget", "20s", "--files", "2")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "mine.onnx").write_bytes(residual())
    np.savez(folder / "samples.npz", image=images(160))
    code = main(
        [
            *("tune", str(folder / "mine.onnx"), "--data", str(folder / "samples.npz")),
            *("--device", f"tvm:database={folder / 'kernels'}", "-o", str(folder / "run"), *SMALL),
        ]
    )
    assert code == 0
    return folder / "run"


@pytest.mark.slow
def test_a_model_is_tuned_into_libraries(tuned: Path) -> None:
    front = json.loads((tuned / "front.json").read_text())
    assert front["candidates"]
    assert {reference["name"] for reference in front["references"]} >= {"int8"}
    folder = next(path.parent for path in (tuned / "export").glob("*/model.so"))
    manifest = read_any(folder)
    assert isinstance(manifest, TunedManifest)
    assert manifest.library is not None
    assert manifest.latency.through == "model.so"
    assert {"model.so", "model.onnx", "example.c", "example.py"} <= manifest.files.keys()
    findings = {f.what: f.holds for f in verify(folder, Checks(latency=False, run_library=True))}
    assert findings["answers of the library"] is True
    assert False not in findings.values()
    unasked = [f for f in verify(folder, Checks(latency=False)) if f.what == "library"]
    assert "--run-library" in unasked[0].now


@pytest.mark.usefixtures("confined_here")
def test_a_model_without_kernels_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper

    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "g", infos[:1], infos[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (tmp_path / "mine.onnx").write_bytes(made.SerializeToString())
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).random((160, 3, 4, 4), np.float32))
    words = ["tune", str(tmp_path / "mine.onnx"), "--data", str(tmp_path / "samples.npz")]
    assert main([*words, "--device", "tvm", "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "1 of 1 units have no kernel of apache-tvm" in said
    assert "Sigmoid" in said
