"""A whole run of decoders, searched by what a prompt and the next token take."""

from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from supernet.registry import FAMILIES
from tests.e2e.test_text import written


@pytest.mark.slow
def test_decoders_are_searched_in_scenarios_and_exported_with_a_cache(
    read: Any,
    small_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(FAMILIES, "tiny-decoder", "tests.nas.tiny_decoder:tiny_decoder")  # type: ignore[call-overload]
    text, folder = tmp_path / "it.txt", tmp_path / "run"
    config = small_run(tmp_path / "run.toml")
    text.write_text(written(8_000))
    words = [
        "--data",
        f"text:{text}?length=16",
        "--space",
        "tiny-decoder",
        "--prefill",
        "24",
        "--decode",
        "40",
    ]
    words += [
        "--decode",
        "40",
        "--objective",
        "bits_per_byte,latency.decode,memory",
        "--min-tokens-per-s",
        "1%",
    ]
    assert main(["run", str(config), *words, "-o", str(folder)]) == 0
    front = read(folder / "front.json")
    for entry in front["candidates"]:
        measured = {name: figure["value"] for name, figure in entry["measured"].items()}
        assert 0 < measured["latency.decode"] < 1
        assert measured["latency.prefill"] == measured["latency"]
        assert measured["tokens_per_s"] == pytest.approx(1 / measured["latency.decode"])
        assert entry["predicted"].keys() >= {"latency.prefill", "latency.decode", "tokens_per_s", "memory"}
    (path,) = (folder / "export").glob("*/manifest.json")
    assert "decoder.onnx" in read(path)["files"]
    capsys.readouterr()
    flags = ["--prefill", "24", "--decode", "40", "--seconds", "0.05"]
    assert main(["bench", str(path.parent), *flags]) == 0
    assert "to the first token (prefill of 24)" in "".join(capsys.readouterr())
    assert main(["run", str(config), *words, "--decode", "64", "-o", str(tmp_path / "other")]) == 2
    assert "the network tells 64 apart; ask for 0 to 63" in capsys.readouterr().err
