"""Every command of the README runs: `make` targets exist, `nas` commands work in its order, on less data."""

import ast
import inspect
import io
import json
import re
import shlex
import subprocess
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import nas
from docs.generate import field_rows, page_of
from nas.cli.main import TEXTS, main
from tests.nas.tune.networks import image_network

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]

# Behind a quick plan, the other stages on so little that all commands together take seconds.
QUICK = """
[data]
source = "imagefolder:digits.zip"
[profile]
share = 0.02
[train]
epochs = 1
batch_size = 128
random_subnets = 1
[sample]
fp32 = 5
quantized = 5
[fit]
predictor = "ridge"
[search]
rounds = 1
budget = 200
batch = 100
finalists = 2
"""
QUICK_TUNE = """
[tune]
evaluations = 8
rounds = 1
finalists = 1
count = 2
"""
SIDE = 16  # pixels of photographs: few enough for the smallest space
# A rough profile says little of which networks are fast enough, so all are.
INSTEAD = {"--budget": "2s", "--max-latency": "1s", "--epochs": "1"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_target_exists(command: str) -> None:
    dry = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr


@pytest.mark.usefixtures("confined_here")
def test_nas_commands_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_measuring: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.toml").write_text(quick_measuring + QUICK)
    (tmp_path / "tune.toml").write_text(quick_measuring + QUICK_TUNE)
    (tmp_path / "detector.onnx").write_bytes(image_network(channels=3, size=SIDE))
    write_photos(tmp_path / "photos.zip", size=SIDE)
    write_photos(tmp_path / "digits.zip", size=8)
    started: set[str] = set()
    unsaid: dict[str, set[str]] = defaultdict(set)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("nas.stages.profile.FITTED", 4)
    monkeypatch.setattr("predictors.latency.kernels.STEPS", 4)
    monkeypatch.setattr("nas.stages.profile.HELD_OUT", 2)
    for command in (c for c in COMMANDS if c.startswith("nas ")):
        words = [found for word in shlex.split(command)[1:] for found in expanded(word, tmp_path)]
        for option, value in INSTEAD.items():
            if option in words:
                words[words.index(option) + 1] = value
        folder = words[words.index("-o") + 1] if "-o" in words else ""
        if folder and folder not in started and words[0] in ("run", "profile"):
            words.insert(1, "quick.toml")
        if words[0] == "tune":
            words += ["--config", "tune.toml"]
        started.add(folder)
        capsys.readouterr()
        assert main([*words, "--json"]) == 0, command
        name = " ".join(words[:2]) if " ".join(words[:2]) in TEXTS else words[0]
        unsaid[name] |= fields_of(json.loads(capsys.readouterr().out)) - documented_fields(name)
    for pattern, (name, kind) in DOCUMENTS.items():
        document = json.loads(next(tmp_path.glob(pattern)).read_text())
        unsaid[pattern] = undocumented(document, kind) - documented_fields(name)
    assert not {name: fields for name, fields in unsaid.items() if fields}
    # at least one: how many are on the front of so little training is not decided
    assert list(tmp_path.glob("runs/photos/export/*/manifest.json"))
    assert (tmp_path / "runs/photos/report.html").stat().st_size > 1_000_000
    assert list(tmp_path.glob("runs/detector/export/*/manifest.json"))
    assert (tmp_path / "runs/detector/report.html").stat().st_size > 1_000_000


# -- what pages say of JSON ---------------------------------------------------------------------------

DOCUMENTS = {
    "runs/photos/state.json": ("run", "nas.run.documents:State"),
    "runs/photos/env.json": ("run", "nas.run.documents:Environment"),
    "runs/photos/samples.json": ("sample", "nas.run.documents:SamplesFile"),
    "runs/photos/quality.json": ("fit", "nas.run.documents:QualityFile"),
    "runs/photos/front.json": ("search", "nas.run.front_document:Front"),
    "runs/photos/export/*/manifest.json": ("export", "nas.export.manifest:Manifest"),
    "runs/detector/front.json": ("tune", "nas.run.tuned_document:TunedFront"),
    "runs/detector/export/*/manifest.json": ("tune", "nas.export.tuned_manifest:TunedManifest"),
    "runs/here/profiles/*.json": ("profile", "hw_profiles.profiles.profile_json:_Profile"),
}
WRITTEN = {"schema", "checksum"}  # by `hw_profiles.files`, in every document


def fields_of(result: Any) -> set[str]:
    """Return the names in a command's result, where that is an object or a list of them."""
    rows = result if isinstance(result, list) else [result]
    return {name for row in rows for name in row}


def documented_fields(command: str) -> set[str]:
    """Return the names that the page of a command shows of its JSON; verify's are names of networks."""
    text = (ROOT / "docs/commands" / page_of(command)).read_text()
    section = text.partition("## Fields of its JSON")[2].partition("## Example")[0]
    names = set(re.findall(r"`([^`]*)`", section))
    return names | ({path.name for path in Path().glob("runs/*/export/*")} if command == "verify" else set())


def undocumented(document: Mapping[str, Any], kind: str) -> set[str]:
    """Return the names of fields in a document that its noun `kind` does not have."""
    rows = {path for path, _, _ in field_rows(resolve_name(kind))}
    return {path.rpartition(".")[2] for path in paths_in(document, "", rows) if path not in rows} - WRITTEN


def paths_in(value: Any, prefix: str, rows: Collection[str]) -> Iterator[str]:
    """Yield the paths of all fields in a JSON value, written as pages do, where rows go on below them."""
    if isinstance(value, list):
        for item in value:
            yield from paths_in(item, f"{prefix}[]", rows)
    elif isinstance(value, dict) and any(path.startswith(f"{prefix}.NAME") for path in rows):
        for item in value.values():
            yield from paths_in(item, f"{prefix}.NAME", rows)
    elif isinstance(value, dict) and (not prefix or any(path.startswith(f"{prefix}.") for path in rows)):
        for name, item in value.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path
            yield from paths_in(item, path, rows)


def expanded(word: str, folder: Path) -> list[str]:
    """What a shell makes of a word with an asterisk."""
    paths = sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "*" in word else []
    return paths or [word]


def test_python_calls_what_there_is_with_arguments_that_it_takes() -> None:
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    of_front = {ast.unparse(call.func).removeprefix("front.") for call in calls} & set(dir(nas.Front))
    assert {"to_frame", "best"} <= of_front
    [search] = [call for call in calls if ast.unparse(call.func) == "nas.search"]
    inspect.signature(nas.search).bind(**{word.arg: None for word in search.keywords if word.arg})


def test_commands_were_found() -> None:
    assert sum(c.startswith("make") for c in COMMANDS) == 2
    assert sum(c.startswith("nas ") for c in COMMANDS) >= 6


def write_photos(path: Path, size: int) -> None:
    """Write three classes of the bundled digits as square colour JPEGs in an archive of class folders."""
    digits = load_digits()
    with zipfile.ZipFile(path, "w") as archive:
        for label in range(3):
            for i, pixels in enumerate(digits.images[digits.target == label][:20]):
                grey = Image.fromarray((pixels * 15).astype(np.uint8)).resize((size, size))
                tinted = Image.merge("RGB", (grey, grey.point(lambda value: value // 2), grey))
                data = io.BytesIO()
                tinted.save(data, "JPEG")
                archive.writestr(f"photos/train/{label}/{i:03}.jpg", data.getvalue())
