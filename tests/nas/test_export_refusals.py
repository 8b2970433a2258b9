"""What `nas export` cannot do is said before anything is written: layers that a library has no kernel for,
and files of another version.
"""

from pathlib import Path
from typing import Any

import pytest

from hw_profiles.files import write_json
from nas.cli.main import main
from nas.run.run import find_run
from supernet.families.family import load_family
from supernet.space.space import Candidate

FAMILY = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32", "fp16"))


def entry(candidate: Candidate) -> dict[str, Any]:
    measured = {"accuracy": {"value": 0.9}, "latency": {"value": 1e-4}, "size": {"value": 1.0}}
    genes = list(map(int, candidate.genes))
    return {"id": candidate.id, "genes": genes, "predicted": {}, "measured": measured}


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A run whose search found an fp16 network and an fp32 one."""
    corners = FAMILY.extremes()
    front = {
        "schema": "front/1",
        "space": {"name": "x", "fingerprint": FAMILY.space().fingerprint, "size": FAMILY.space().size},
        "device": "ort-cpu-1t",
        "objectives": [{"name": "accuracy"}, {"name": "latency"}],
        "rounds": [],
        "evaluated": [],
        "candidates": [entry(corners["smallest/fp16"]), entry(corners["smallest/fp32"])],
        "reference": entry(corners["largest/fp32"]),
    }
    write_json(tmp_path / "front.json", front)
    (tmp_path / "run.toml").write_text('[space]\nformats = ["fp32", "fp16"]\n')
    return tmp_path


def export(folder: Path, *more: str) -> int:
    return main(["export", "-o", str(folder), "--formats", "fp32,fp16", *more])


def test_a_layer_that_a_library_cannot_hold_is_named_and_another_network_offered(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fp16, fp32 = (FAMILY.extremes()[f"smallest/{fmt}"].id for fmt in ("fp16", "fp32"))
    earlier = searched / "export" / "earlier"
    earlier.mkdir(parents=True)
    assert export(searched, "--library", "host", "--pick", fp16) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{fp16}: " in said
    assert "TVM's kernels have no stem with relu (fp16 weights, fp16 activations)" in said
    assert "the nearest they run is stem with relu (fp32 weights, fp32 activations)" in said
    assert f"of the front, --pick {fp32} comes nearest" in said
    assert earlier.exists()


@pytest.mark.parametrize(
    ("file", "wanted"), [("front.json", "front/1"), ("state.json", "state/1"), ("mine.json", "profile/1")]
)
def test_a_file_of_another_version_is_named_with_both_versions(
    file: str, wanted: str, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(searched / file, {"schema": wanted.replace("/1", "/0")})
    device = f"recorded:{searched / 'mine.json'}" if file == "mine.json" else "ort"
    assert export(searched, "--device", device) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert file in said
    assert f"schema '{wanted.replace('/1', '/0')}', but this version reads '{wanted}'" in said
    assert "use the version that wrote it, or have this one write it again" in said


def test_a_run_of_a_space_that_is_another_now_is_refused(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "-o", str(searched), "--formats", "fp32,int8"]) == 2
    assert "of another space; run `nas search` again" in " ".join(capsys.readouterr().err.split())
    assert not find_run(searched).export_path.exists()
