"""`nas verify` and `nas bench` on tuned networks, whole, changed and forged."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from nas.cli.main import main
from nas.export.manifests import read_any
from nas.export.tuned_manifest import TunedManifest
from nas.verification.verification import Checks, verify
from tests.nas.exported import copied, forged
from tests.nas.tune.exported import write_tuned
from tests.nas.tune.networks import image_network, token_network, token_samples


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tuned(tmp_path_factory.mktemp("tuned") / "export", token_network(), token_samples(8))


def differing(folder: Path) -> list[str]:
    return [finding.what for finding in verify(folder, Checks(latency=False)) if finding.holds is False]


def test_a_whole_folder_holds(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tuned.parents[1]), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)[tuned.name]
    assert {one["what"]: one["holds"] for one in findings} == {
        **dict.fromkeys(
            (
                "digest of manifest.json",
                "id of genes and space",
                "sha256 of model.onnx",
                "sha256 of README.md",
            ),
            True,
        ),
        **dict.fromkeys(("claims in the file", "opset", "integer kernels", "answers"), True),
        "latency": None,
    }
    assert "another CPU" in findings[-1]["then"]


def test_the_manifest_says_what_the_network_reads_and_the_card_too(tuned: Path) -> None:
    manifest = read_any(tuned)
    assert isinstance(manifest, TunedManifest)
    assert list(map(str, manifest.inputs)) == ["ids: nxlength int64", "mask: nxlengthx1 float32"]
    assert list(map(str, manifest.outputs)) == ["scores: nxlengthx3 float32", "tags: nxlength int64"]
    card = (tuned / "README.md").read_text()
    for text in (
        "mine.onnx",
        "97.00 % ± 2.00 %, 32 examples",
        "0.50 x, in the same run",
        "1 in int8, 2 as they",
    ):
        assert text in card


@pytest.mark.usefixtures("confined_here")
def test_another_network_under_the_same_name_is_found(tuned: Path, tmp_path: Path) -> None:
    proto = onnx.load(tuned / "model.onnx")
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "m")
    weight.raw_data = weight.raw_data[::-1]
    other = forged(tuned, tmp_path / "other", files={"model.onnx": proto.SerializeToString()})
    assert differing(other) == ["answers"]
    changed = copied(tuned, tmp_path / "changed")
    (changed / "model.onnx").write_bytes(proto.SerializeToString())
    assert differing(changed) == ["sha256 of model.onnx"]


@pytest.mark.usefixtures("confined_here")
def test_what_is_not_a_tuned_network_is_one_line(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for position, (changes, complaint) in enumerate(
        (
            ({"quality": {"n": 3, "metrics": {}}}, "metrics: needs one at least"),
            ({"inputs": [{"name": "x", "dtype": "int64", "shape": ["n"]}]}, "its inputs are ids"),
            ({"instruction_set": 3}, "instruction_set"),
            ({"answers": {"inputs": [], "outputs": {}}}, "needs 1 to 16 answers"),
        )
    ):
        folder = forged(tuned, tmp_path / f"{position}", **changes)
        assert main(["verify", str(folder), "--no-latency"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert complaint in line
    stranger = forged(tuned, tmp_path / "stranger", files={"model.onnx": image_network()})
    assert main(["verify", str(stranger), "--no-latency"]) == 2
    assert "calls itself nothing" in capsys.readouterr().err


@pytest.mark.usefixtures("confined_here")
def test_quality_is_looked_at_again_where_the_original_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original's answers to the data are what quality is compared with."""
    network = token_network()
    origin = {"name": "mine.onnx", "sha256": hashlib.sha256(network).hexdigest(), "bytes": len(network)}
    folder = write_tuned(tmp_path / "run" / "export", network, token_samples(8), origin=origin)
    samples = token_samples(32)
    np.savez(tmp_path / "more.npz", **{name: array[:, 0] for name, array in samples.inputs.items()})
    words = ["verify", str(folder), "--data", str(tmp_path / "more.npz"), "--no-latency", "--json"]
    assert main(words) == 0
    [missing] = [f for f in json.loads(capsys.readouterr().out)[folder.name] if f["what"] == "quality"]
    assert "mine.onnx, which answers are compared with, is not at" in missing["now"]
    (tmp_path / "run" / "original.onnx").write_bytes(network)
    assert main(words) == 0
    [found] = [f for f in json.loads(capsys.readouterr().out)[folder.name] if f["what"] == "agreement"]
    assert found["now"] == "100.00 % ± 0.00 % on 32 examples of more.npz"
    np.save(tmp_path / "other.npy", np.zeros((32, 7), np.float32))
    assert main([*words[:3], str(tmp_path / "other.npy"), "--no-latency"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
