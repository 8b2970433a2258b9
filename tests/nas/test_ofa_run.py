"""A whole run in a space of blocks: measured as units, begun with a checkpoint, shipped as files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.graph.layer import parse_key
from nas.cli.main import main
from supernet.families.family import FAMILIES, load_family
from supernet.families.ofa_mobile import MobileFamily, MobileLayers, MobileStage
from supernet.zoo.ofa_checkpoint import ORIGINAL_NAMES

pytestmark = pytest.mark.slow

STAGES = (MobileStage(16, 2, "relu", True, (1, 2)), MobileStage(24, 2, "hswish", True, (1, 2)))


def small(*, in_channels: int, classes: int, formats: tuple[str, ...] = ("fp32", "int8")) -> MobileFamily:
    layers = MobileLayers(in_channels, 8, 8, STAGES, 48, 64, classes, "hswish", "relu")
    return MobileFamily("small-blocks", layers, 1e-5, formats, (20, 28))


def same(name: str) -> str:
    return name


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_measuring: str) -> Path:
    monkeypatch.setitem(FAMILIES, "small-blocks", f"{__name__}:small")
    monkeypatch.setitem(ORIGINAL_NAMES, "small-blocks", f"{__name__}:same")
    monkeypatch.setattr("nas.stages.profile.FITTED", 3)
    monkeypatch.setattr("nas.stages.profile.HELD_OUT", 2)
    path = tmp_path / "blocks.toml"
    sections = """
[space]
name = "small-blocks"
[profile]
share = 0.3
[train]
epochs = 1
[sample]
fp32 = 8
quantized = 8
[fit]
predictor = "ridge"
[search]
rounds = 1
finalists = 4
budget = 1000
batch = 250
[export]
count = 2
"""
    path.write_text(quick_measuring + sections)
    return path


def test_a_space_of_blocks_goes_all_the_way(config: Path, tmp_path: Path) -> None:
    family = load_family("small-blocks", in_channels=3, classes=10)
    net = family.supernet(rng=np.random.default_rng(0))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "published")
    checkpoint, run = tmp_path / "ours.pt", tmp_path / "run"
    words = ["import-ofa", tmp_path / "published", "--space", "small-blocks", "-o", checkpoint]
    assert main([str(word) for word in words]) == 0
    assert main(["run", str(config), "--init", str(checkpoint), "-o", str(run)]) == 0
    (profile,) = (run / "profiles").glob("*.json")
    table = json.loads(profile.read_text())["table"]
    measured = {parse_key(key).op for key, row in table.items() if row["source"] == "measured"}
    assert {"mbconv", "conv", "pool"} <= measured
    manifests = [json.loads(path.read_text()) for path in (run / "export").glob("*/manifest.json")]
    assert len(manifests) == 2
    for manifest in manifests:
        assert manifest["parity"]["agreement"] >= 0.995
        assert {"stem", "first", "s0.b0", "s1.b0", "head", "mix", "classifier"} <= set(manifest["policy"])
    assert "s1.b0" in (run / "report.html").read_text()
