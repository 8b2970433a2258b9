"""`nas export --finetune`: search-validation decides what is shipped, and the manifest says all of it."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hw_profiles.files import read_json, write_json
from nas.checks.parity import file_metric
from nas.cli.main import main
from nas.export.manifest import SCHEMA
from nas.report.run_files import read_run
from nas.run.config_file import parse_config
from nas.run.run import Run, find_run, open_run
from nas.stages.finetune import TEACHER, recipe_of
from supernet.space.space import Candidate
from supernet.train.config import TrainConfig

CLASSES = tuple("abcdefghij")
CONFIG = """
[train]
epochs = 1
batch_size = 32
random_subnets = 0
"""


def mixed(run: Run) -> Candidate:
    """The smallest architecture, in int8 and fp32 in turn."""
    space, genes = run.family.space(), np.array(run.family.extremes()["smallest/int8"].genes, np.int16)
    formats = [i for i, choice in enumerate(space.choices) if choice.kind == "precision"]
    genes[formats[::3]] = 0
    return space.candidate(space.canonical(genes[None])[0])


def entry(candidate: Candidate, accuracy: float) -> dict[str, Any]:
    """As the front holds it, with a made-up accuracy on search-validation."""
    measured = {
        "accuracy": {"value": accuracy},
        "latency": {"value": 1e-5 + accuracy},
        "size": {"value": 1.0},
    }
    described = {"arch": {}, "policy": {}, "predicted": {}, "measured": measured}
    return {"id": candidate.id, "genes": list(map(int, candidate.genes)), **described}


@pytest.fixture(scope="module")
def trained(
    profile_file: Path, write_images: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run whose search found two networks: one as bad as can be on search-validation, one perfect."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "mine.toml").write_text(CONFIG)
    data = f"imagefolder:{write_images(folder / 'noise', CLASSES, each=16)}"
    words = ["train", folder / "mine.toml", "--device", f"recorded:{profile_file}", "--data", data]
    assert main([*map(str, words), "-o", str(folder / "run")]) == 0
    run = find_run(folder / "run")
    corners, space = run.family.extremes(), run.family.space()
    write_json(
        run.front_path,
        {
            "schema": "front/1",
            "space": {"name": space.family, "fingerprint": space.fingerprint, "size": space.size},
            "device": "made-up-cpu",
            "objectives": [{"name": "accuracy"}, {"name": "latency"}],
            "rounds": [],
            "evaluated": [],
            "candidates": [entry(mixed(run), 0.0), entry(corners["smallest/fp32"], 1.0)],
            "reference": entry(corners["largest/fp32"], 1.0),
        },
    )
    return run.folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    assert main(["export", "--finetune", "1", "-o", str(trained)]) == 0
    return trained


@pytest.fixture(scope="module")
def manifests(exported: Path) -> dict[str, dict[str, Any]]:
    run = find_run(exported)
    manifests = {
        path.parent.name: read_json(path, SCHEMA) for path in exported.glob("export/*/manifest.json")
    }
    return {"better": manifests[mixed(run).id], "worse": manifests[run.family.extremes()["smallest/fp32"].id]}


@pytest.mark.slow
def test_the_manifest_says_what_tuning_did(manifests: dict[str, dict[str, Any]], exported: Path) -> None:
    data = find_run(exported).images
    for manifest in manifests.values():
        tuning, accuracy = manifest["finetuning"], manifest["accuracy"]
        assert (tuning["epochs"], tuning["rounded"]) == (1, False)
        assert (tuning["optimiser"], tuning["learning_rate"]) == ("adamw", 0.2 * TrainConfig().learning_rate)
        model = (exported / "export" / manifest["id"] / "model.onnx").read_bytes()
        assert hashlib.sha256(model).hexdigest() == manifest["files"]["model.onnx"]["sha256"]
        assert accuracy["test"] == file_metric(model, data.test, data)
        shipped = tuning["after"] if tuning["kept"] else tuning["before"]
        assert shipped == {"validation": accuracy["validation"], "test": accuracy["test"]}
        assert manifest["parity"]["agreement"] >= 0.995


def test_weights_that_are_used_as_they_are_bring_their_recipe_along(trained: Path, tmp_path: Path) -> None:
    def recipe(init: str, space: str, folder: str) -> TrainConfig:
        train = {"epochs": 0, "init": init, "threads": 2}
        config = parse_config({"space": {"name": space}, "train": train}, origin="test")
        return recipe_of(open_run(tmp_path / folder, config))

    shipped = recipe("shipped:cifar-pooled", "cifar-pooled", "shipped")
    assert (shipped.optimiser, shipped.flip, shipped.threads, shipped.amp) == ("muon", True, 2, "auto")
    own = recipe(str(trained / "supernet" / "last.pt"), "digits-mbconv", "own")
    assert (own.batch_size, own.epochs) == (32, 1)
    assert recipe_of(find_run(trained)) == find_run(trained).config.train


def test_search_validation_decides(manifests: dict[str, dict[str, Any]]) -> None:
    better, worse = manifests["better"]["finetuning"], manifests["worse"]["finetuning"]
    assert better["kept"]
    assert better["before"]["validation"] == 0.0
    assert not worse["kept"]
    assert worse["after"]["validation"] < worse["before"]["validation"] == 1.0


def test_what_is_done_is_not_done_again(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "-o", str(exported)]) == 0
    assert "export: already there" in " ".join(capsys.readouterr().out.split())
    assert (exported / "finetune" / TEACHER).is_file()
    tuned = {path: path.stat().st_mtime_ns for path in exported.glob("finetune/*.pt")}
    (exported / "state.json").unlink()
    models = {path: path.read_bytes() for path in exported.glob("export/*/model.onnx")}
    shutil.rmtree(exported / "export")
    assert main(["export", "-o", str(exported)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fine-tuning: 2 networks, already there" in said
    assert "fine-tuned 2 networks" in said
    assert "1 got worse and is exported as it was" in said
    assert len(tuned) == 3
    assert tuned == {path: path.stat().st_mtime_ns for path in exported.glob("finetune/*.pt")}
    assert models == {path: path.read_bytes() for path in exported.glob("export/*/model.onnx")}


def test_without_it_nothing_is_tuned(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("finetune")))
    assert main(["export", "--finetune", "0", "-o", str(folder)]) == 0
    assert "fine-tun" not in capsys.readouterr().out
    assert not (folder / "finetune").exists()
    for path in folder.glob("export/*/manifest.json"):
        assert read_json(path, SCHEMA)["finetuning"] is None


def test_the_cost_is_said_first(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("finetune")))
    assert main(["export", "--finetune", "2", "--count", "1", "-o", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fine-tuning 1 networks, 2 epochs each: about 0." in said
    assert len(list(folder.glob("finetune/*.pt"))) == 2  # the teacher's answers, and a network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[export]\nfinetune = -1\n", "export.finetune must be a whole number from 0 to 10,000, got -1"),
        (
            "[export]\nfinetune_learning_rate = 0\n",
            "export.finetune_learning_rate must be a number above 0 and at most 100, got 0",
        ),
        ("[export]\nfinetune = 1.5\n", "export.finetune must be a whole number from 0 to 10,000, got 1.5"),
    ],
)
def test_what_cannot_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(text)
    assert main(["export", str(config), "-o", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_negative_epochs_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--finetune", "-1", "-o", str(tmp_path / "run")]) == 2
    assert "export.finetune must be a whole number from 0 to 10,000, got -1" in capsys.readouterr().err


def test_exports_are_signed_and_what_somebody_put_there_is_kept(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(exported, tmp_path / "run"))
    key, keys = Ed25519PrivateKey.generate(), serialization
    (tmp_path / "key").write_bytes(
        key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption())
    )
    (tmp_path / "key.pub").write_bytes(
        key.public_key().public_bytes(keys.Encoding.PEM, keys.PublicFormat.SubjectPublicKeyInfo)
    )
    folders = {path.parent.name for path in run.glob("export/*/manifest.json")}
    colleague = Path(shutil.copytree(run / "export" / min(folders), run / "export" / "of a colleague"))
    for folder in folders:
        (run / "export" / folder / "notes.txt").write_text("mine")
    words = ["export", "--pick", max(folders), "--sign", str(tmp_path / "key"), "-o", str(run)]
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    names = sorted([min(folders), f"{max(folders)}/notes.txt", colleague.name])
    assert f"not of this export: {', '.join(names)}" in said
    assert [path.name for path in (run / "export" / min(folders)).iterdir()] == ["notes.txt"]
    assert (colleague / "manifest.json").is_file()
    assert main(["report", "-o", str(run)]) == 0
    assert [export.id for export in read_run(run).exports] == [max(folders)]
    signed = run / "export" / max(folders)
    (signed / "notes.txt").unlink()
    assert main(["verify", str(signed), "--no-latency", "--verify-key", str(tmp_path / "key.pub")]) == 0
    assert main([*words[:-3], str(tmp_path / "nothing"), *words[-2:]]) == 2
    assert "nothing" in capsys.readouterr().err
