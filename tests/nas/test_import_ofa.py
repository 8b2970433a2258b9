"""`nas import-ofa` from the command line."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.cli.main import main
from supernet.families.family import FAMILIES, Family, load_family
from supernet.families.ofa_mobile import MobileFamily, MobileLayers, MobileStage
from supernet.train.checkpoint import load_weights
from supernet.train.loop import load_supernet
from supernet.zoo.ofa_checkpoint import ORIGINAL_NAMES

CLASSES = 4


def small(*, in_channels: int, classes: int, formats: tuple[str, ...] = ("fp32", "int8")) -> MobileFamily:
    stages = (MobileStage(8, 2, "relu6", depths=(1, 2)),)
    return MobileFamily(
        "small", MobileLayers(in_channels, 8, 8, stages, 16, 0, classes, "relu6", "relu6"), 1e-5, formats
    )


def same(name: str) -> str:
    return name.removeprefix("theirs.")


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Family:
    """A small space that takes part as a plug-in would."""
    monkeypatch.setitem(FAMILIES, "small", f"{__name__}:small")
    for name in ORIGINAL_NAMES.copy():
        monkeypatch.delitem(ORIGINAL_NAMES, name)
    monkeypatch.setitem(ORIGINAL_NAMES, "small", f"{__name__}:same")
    return load_family("small", in_channels=3, classes=CLASSES)


@pytest.fixture
def published(family: Family, tmp_path: Path) -> Path:
    net = family.supernet(rng=np.random.default_rng(0))
    tensors = {f"theirs.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "published")
    return tmp_path / "published"


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = main(["import-ofa", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_what_fits_becomes_a_trained_supernet(
    family: Family, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "ours.pt"
    code, out, err = run(capsys, published, "-o", target)
    assert (code, err) == (0, "")
    assert "small: " in out
    assert f"{target}: {CLASSES} classes; use it with `nas train --space small --init {target}`" in out
    expected = family.supernet(rng=np.random.default_rng(0)).state_dict()
    for found in (load_supernet(family, target).state_dict(), load_weights(target).tensors):
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    weights = load_weights(target)
    assert (weights.space, weights.classes, weights.unfinished) == ("small", (), 0)
    assert weights.metadata["imported from"] == "published"


def test_the_result_as_json_and_in_the_current_folder(
    family: Family,
    published: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, published, "--space", "small", "--formats", "fp32, int4", "--json")
    space = load_family("small", in_channels=3, classes=CLASSES, formats=("fp32", "int4")).space()
    assert code == 0
    assert json.loads(out) == {
        "checkpoint": "small.pt",
        "space": "small",
        "fingerprint": space.fingerprint,
        "classes": CLASSES,
        "tensors": len(family.supernet(rng=np.random.default_rng(0)).state_dict()),
    }
    assert (tmp_path / "small.pt").exists()


def test_what_does_not_fit_is_listed_and_nothing_is_written(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = torch.load(published)
    document["state_dict"]["theirs.stem.weight"] = torch.ones(1)
    torch.save(document, published)
    code, out, err = run(capsys, published, "-o", tmp_path / "ours.pt")
    assert code == 2
    assert "  of another shape: stem.weight is 1 in the file, 8x3x3x3 in the space" in out
    assert err == (
        f"nas: {published}: does not fit small: 0 tensors missing, 0 unexpected, 1 of another shape; "
        "known spaces: small\n"
    )
    assert not (tmp_path / "ours.pt").exists()


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_code_is_refused_and_not_run(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "ran"
    for content in (pickle.dumps({"state_dict": Malicious(marker)}), pickle.dumps(Malicious(marker))):
        (tmp_path / "net").write_bytes(content)
        code, out, err = run(capsys, tmp_path / "net", "-o", tmp_path / "ours.pt")
        assert (code, out) == (2, "")
        assert "not a file of tensors alone" in err
        assert len(err.splitlines()) == 1
    assert not marker.exists()
    assert not (tmp_path / "ours.pt").exists()


def test_a_missing_file_is_one_line(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, tmp_path / "nothing")
    assert (code, out, err) == (2, "", f"nas: {tmp_path / 'nothing'}: no such checkpoint\n")
