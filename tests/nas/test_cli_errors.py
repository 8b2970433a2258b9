"""Bad input, broken files and interruptions: one line that says what to do, and nothing half-written."""

import errno
import json
import os
import pickle
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from hw_profiles.documents import read_document, write_document
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import save_profile
from nas.cli.main import main
from nas.run.lock import FILE, Lock
from nas.stages import pipeline
from supernet.train.checkpoint import save_checkpoint

Refused = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A run folder, in which whatever stands under its final name must be whole afterwards."""
    run = tmp_path / "run"
    yield run
    assert not list(tmp_path.rglob("*.part"))
    for path in run.rglob("*.toml"):
        tomllib.loads(path.read_text())


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must fail; gives its only line of complaint."""

    def command(*arguments: str | Path, code: int = 2) -> str:
        assert main([*map(str, arguments), "-o", str(folder)]) == code
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("nas: ")
        return line

    return command


@pytest.fixture
def recorded(profile_file: Path) -> str:
    return f"recorded:{profile_file}"


# -- names and values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["profile", "--device", "abacus"],
            "device.name must be one of adb, litert, ncnn, openvino, ort, recorded",
        ),
        (["profile", "--device", "recorded"], "write recorded:PROFILE.json"),
        (["profile", "--device", "recorded:none.json"], "none.json: no such file"),
        (
            ["train", "--space", "everything"],
            "must be one of apq-proxyless, bert-base, cifar-mbconv, cifar-pooled",
        ),
        (["train", "--data", "letters"], "data.source must be one of cifar10, csv, digits, imagefolder"),
        (["train", "--threads", "0"], "device.threads must be a whole number from 1 to 1,024, got 0"),
        (["train", "--seed", "-1"], "seed must be a whole number from 0 to 4,294,967,295, got -1"),
        (
            ["search", "--objective", "accuracy,speed"],
            "snr, steps, tokens_per_s, worst_class, got 'speed'",
        ),
        (["search", "--objective", "accuracy,accuracy"], "each once"),
        (["search", "--max-latency", "fast"], "write a number and one of: s, ms, us"),
        (["search", "--min-accuracy", "95"], "'95%' is a percentage"),
        (
            ["search", "--architecture", "smallest"],
            "search.architecture = 'smallest' is for the searcher milp",
        ),
        (["search", "--engine", "tpe", "--aim", "latency=1ms"], "is for the searcher rnsga2, not for tpe"),
        (["export", "--count", "0"], "export.count must be a whole number from 1 to 1,000,000, got 0"),
        (["train", "--formats", "int8"], "training and search need fp32 among them"),
    ],
)
def test_unknown_names_and_values(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[spaces]\n", "unknown section 'spaces'; did you mean 'space'?; known: seed, data, device"),
        ("[train]\nepoch = 3\n", "unknown key train.epoch; did you mean 'epochs'?; known: accumulate"),
        ('[train]\nepochs = "3"\n', "train.epochs must be a whole number from 0 to 100,000, got '3'"),
        ("train = 3\n", "[train] must be a table, got 3"),
        ("[train\n", "not valid TOML"),
        ('[constraints]\nlatency = "3 miles"\n', "write a number"),
    ],
)
def test_configurations_that_make_no_sense(refused: Refused, tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(text)
    assert message in refused("run", config)
    assert not (tmp_path / "run").exists()


def test_a_missing_configuration(refused: Refused, tmp_path: Path) -> None:
    assert "no such configuration file" in refused("run", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"search": {"searcher": "luck"}},
            "search.searcher must be one of aging, evolution, local-moves",
        ),
        ({"fit": {"predictor": "luck"}}, "fit.predictor must be one of auto, boosting, "),
    ],
)
def test_names_of_late_stages_are_checked_before_the_first(
    refused: Refused, recorded: str, folder: Path, tmp_path: Path, section: dict[str, object], message: str
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(tomli_w.dumps(section))
    assert message in refused("run", config, "--device", recorded)
    assert not (folder / "profiles").exists()


@pytest.mark.parametrize(
    ("limit", "value"), [("--max-size", "1KB"), ("--max-macs", "10"), ("--max-latency", "1ns")]
)
def test_a_limit_that_nothing_meets_names_the_nearest_value(
    refused: Refused, recorded: str, folder: Path, limit: str, value: str
) -> None:
    line = refused("run", "--device", recorded, limit, value)
    assert "cannot be met on this device; the nearest reachable value is" in line
    assert not (folder / "supernet").exists()


# -- data ---------------------------------------------------------------------------------------------


def write_images(folder: Path, classes: int) -> Path:
    for label in range(classes):
        for i in range(12):
            path = folder / "train" / f"class{label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([label, i]).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def test_data_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "no such file or folder" in refused("train", "--data", f"imagefolder:{tmp_path / 'none'}")


def test_data_without_images(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "no images in class folders" in refused("train", "--data", f"imagefolder:{tmp_path / 'images'}")


def test_data_of_one_class(refused: Refused, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 1)
    assert "only one class, 'class0'" in refused("train", "--data", f"imagefolder:{images}")


def test_data_with_a_broken_image(refused: Refused, tmp_path: Path) -> None:
    broken = write_images(tmp_path / "images", 2) / "train" / "class1" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    line = refused("train", "--data", f"imagefolder:{tmp_path / 'images'}")
    assert "broken image" in line
    assert "class1/3.png" in line


@pytest.mark.parametrize(
    ("content", "source", "message"),
    [
        (None, "csv:{}", "no such file or folder (data.source); did you mean 'data.csv'?"),
        ("words,label\na,b\n", "csv:{}", "data.csv, line 1: no column 'text'; columns: 'words, label'"),
        ("text,label\na,b\nc,b\n", "csv:{}", "only one class, 'b'; texts of at least two classes are needed"),
        ("text,label\na,b\nc\n", "csv:{}?length=8", "data.csv, line 3: 1 field where the header has 2"),
        ("some words", "text:{}", "8 bytes of text for train, and a window of length=256 needs 257"),
        (
            "some words " * 99,
            "text:{}?length=16",
            "text-decoder has networks that read 128 tokens, and examples of data.csv have 16",
        ),
    ],
)
def test_text_that_cannot_be_used(
    refused: Refused, tmp_path: Path, content: str | None, source: str, message: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content or "")
    assert message in refused("train", "--data", source.format(path if content else tmp_path / "dat.csv"))


def test_a_space_that_says_something_else_than_the_data_asks_for(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("some words " * 999)
    line = refused("train", "--data", f"text:{tmp_path / 'own.txt'}", "--space", "token-encoder")
    assert "token-encoder is of networks that say the class of each token, and own.txt asks for the" in line
    assert line.strip().endswith("take --space text-decoder or text-decoder-5m, or --data python-tokens")


# -- files of other spaces, broken files --------------------------------------------------------------


def test_a_profile_of_another_space(refused: Refused, device_profile: DeviceProfile, tmp_path: Path) -> None:
    other = replace(device_profile, table=dict(list(device_profile.table.items())[::2]))
    save_profile(other, tmp_path / "other.json")
    line = refused("profile", "--device", f"recorded:{tmp_path / 'other.json'}")
    assert f"lacks {len(device_profile.table) - len(other.table)} of the" in line
    assert "made for another space" in line


def test_a_truncated_profile(refused: Refused, profile_file: Path, folder: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text(profile_file.read_text()[:5000])
    assert "not whole JSON" in refused("profile", "--device", f"recorded:{cut}")
    assert not (folder / "profiles").exists()


@pytest.mark.parametrize("command", ["export", "report"])
def test_a_truncated_front(refused: Refused, recorded: str, folder: Path, command: str) -> None:
    main(["profile", "--device", recorded, "-o", str(folder)])
    (folder / "front.json").write_text('{"schema": "front/1", "candid')
    assert "front.json: not whole JSON" in refused(command)


def test_a_front_of_another_space(refused: Refused, recorded: str, folder: Path) -> None:
    main(["profile", "--device", recorded, "-o", str(folder)])
    space = {"name": "it", "fingerprint": "another", "size": 1}
    network = {"id": "a", "genes": [0], "predicted": {}, "measured": {}}
    rest = {"device": "none", "objectives": [], "rounds": [], "candidates": [network], "evaluated": []}
    document = {"schema": "front/1", "space": space, **rest}
    (folder / "front.json").write_text(json.dumps(document))
    assert "of another space; run `nas search` again" in refused("export")


@pytest.mark.parametrize(("stage", "before"), [("search", "profile"), ("export", "search")])
def test_stages_name_the_stage_before(refused: Refused, recorded: str, stage: str, before: str) -> None:
    line = refused(stage, "--device", recorded)
    assert f"nas {before}" in line or f"{before}.json" in line or "front/1" in line


def test_a_checkpoint_of_another_space(refused: Refused, folder: Path) -> None:
    save_checkpoint(folder / "supernet" / "last.pt", {"space": "another"})
    assert "trained for space another" in refused("train")


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_is_not_run(
    refused: Refused, folder: Path, tmp_path: Path, write: Callable[[object, Path], object]
) -> None:
    path = folder / "supernet" / "last.pt"
    path.parent.mkdir(parents=True)
    write({"schema": "supernet/1", "space": Payload(tmp_path / "owned")}, path)
    assert "delete it and run `nas train` again" in refused("train")
    assert not (tmp_path / "owned").exists()


def test_a_storage_that_is_none(refused: Refused, recorded: str, folder: Path) -> None:
    main(["profile", "--device", recorded, "-o", str(folder)])
    (folder / "run.db").write_text("not a database, but long enough to look like one " * 100)
    assert "run.db: " in refused("sample")


# -- disks and people ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ("hw_profiles.files.open", errno.EACCES, "permission denied"),
        ("hw_profiles.files.open", errno.ENOSPC, "no space left on device"),
        ("os.fsync", errno.ENOSPC, "no space left on device"),
        ("os.replace", errno.ENOSPC, "no space left on device"),
    ],
)
def test_a_full_disk_and_a_folder_that_cannot_be_written(
    refused: Refused,
    recorded: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    words: str,
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(call, fail, raising=False)
    line = refused("profile", "--device", recorded)
    assert words in line
    assert "-o" in line
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_an_old_file_survives_a_full_disk(
    refused: Refused, recorded: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["profile", "--device", recorded, "-o", str(folder)])
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    monkeypatch.setattr(
        "os.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
    )
    refused("profile", "--device", recorded, "--seed", "3")
    assert before == {path: path.read_bytes() for path in folder.rglob("*.json")}
    shutil.rmtree(folder)


def test_an_interruption_says_how_to_continue(
    refused: Refused, recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setitem(pipeline._STAGES, "profile", interrupt)
    line = refused("profile", "--device", recorded, code=130)
    assert "the same command continues" in line


def test_a_bug_keeps_its_traceback(recorded: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> NoReturn:
        raise RuntimeError("a bug")

    monkeypatch.setitem(pipeline._STAGES, "profile", crash)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["profile", "--device", recorded, "-o", str(folder)])


# -- two commands at once -----------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_readers_are_not(
    refused: Refused, recorded: str, folder: Path
) -> None:
    assert main(["profile", "--device", recorded, "-o", str(folder)]) == 0
    other = Lock("anna", "elsewhere", 17, 0.0, "", "2026-11-29 10:00:00")
    write_document(folder / FILE, other)
    for command in ("run", "profile", "train", "sample", "fit", "search", "export"):
        assert f"in use by {other}; wait for it" in refused(command)
    assert main(["report", "-o", str(folder)]) == 0
    assert read_document(folder / FILE, Lock) == other
    (folder / FILE).unlink()
    assert main(["profile", "-o", str(folder)]) == 0
