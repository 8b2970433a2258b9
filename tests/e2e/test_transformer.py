"""A whole run on a space of transformers: units are measured in context, files verified."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_run_on_transformers_ends_with_verified_files(nas, read, small_run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = small_run(tmp_path / "run.toml", space={"name": "digits-vit"}, train={"batch_size": 256})
    nas("run", config, "-o", folder)
    front: dict[str, Any] = read(folder / "front.json")
    assert front["space"]["name"] == "digits-vit"
    (manifest,) = (folder / "export").glob("*/manifest.json")
    parity = read(manifest)["parity"]
    assert parity["agreement"] >= 0.995
    assert parity["integer_kernels"] == parity["integer_layers"]
    assert (folder / "report.html").stat().st_size > 0
