"""`nas tune --device openvino`: the same search, another table; and what it found beside ONNX Runtime."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from nas.cli.main import main
from nas.export.manifests import read_any
from nas.verification.verification import Checks, verify
from tests.nas.export.test_policy_library import images, residual

pytestmark = pytest.mark.slow
SMALL = ("--budget", "10s", "--files", "2", "--formats", "int8,fp16")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "mine.onnx").write_bytes(residual())
    np.savez(folder / "samples.npz", image=images(160))
    words = ("tune", str(folder / "mine.onnx"), "--data", str(folder / "samples.npz"))
    assert main([*words, "--device", "openvino", "-o", str(folder / "run"), *SMALL]) == 0
    return folder / "run"


def test_a_model_is_tuned_for_it(tuned: Path) -> None:
    front = json.loads((tuned / "front.json").read_text())
    assert front["device"].startswith("openvino-cpu")
    assert {reference["name"] for reference in front["references"]} >= {"int8"}
    assert all(each["latency"]["median_s"] > 0 for each in front["candidates"])
    folder = next((tuned / "export").glob("*/model.onnx")).parent
    manifest = read_any(folder)
    assert (manifest.device.engine, manifest.versions["openvino"][:2]) == ("openvino", "20")
    findings = {finding.what: finding.holds for finding in verify(folder, Checks(latency=False))}
    assert findings["answers"] is True
    assert False not in findings.values()


def test_what_was_found_is_compared_with_onnx_runtime(
    tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare-runtimes", str(tuned), "--device", "ort", "--device", "openvino", "--json"]
    assert main(words) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert {file["device"] for file in files[:2]} == {"ort", "openvino"}
    assert [file["device"] for file in files].count("openvino") == 2
    assert all(file["difference"] < 0.2 for file in files)
