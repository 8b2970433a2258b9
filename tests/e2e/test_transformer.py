"""A whole run on a space of transformers: units are measured in context, files verified."""

from pathlib import Path
from typing import Any

import pytest

SECTIONS = """
[space]
name = "digits-vit"

[profile]
share = 0.05

[train]
epochs = 1
batch_size = 256
random_subnets = 1

[sample]
fp32 = 4
quantized = 4

[fit]
predictor = "ridge"

[search]
rounds = 1
finalists = 2
budget = 100
batch = 50

[export]
count = 1
"""


@pytest.mark.slow
def test_a_run_on_transformers_ends_with_verified_files(
    nas, read, quick_measuring: str, tmp_path: Path
) -> None:
    config, folder = tmp_path / "run.toml", tmp_path / "run"
    config.write_text(SECTIONS + quick_measuring)
    nas("run", config, "-o", folder)
    front: dict[str, Any] = read(folder / "front.json")
    assert front["space"]["name"] == "digits-vit"
    (manifest,) = (folder / "export").glob("*/manifest.json")
    parity = read(manifest)["parity"]
    assert parity["agreement"] >= 0.995
    assert parity["integer_kernels"] == parity["integer_layers"]
    assert (folder / "report.html").stat().st_size > 0
