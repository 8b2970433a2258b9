"""`nas spaces design`, on the model of an accelerator: what is measured there takes no time."""

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json
from nas.cli.main import main
from nas.design import blocks, designed
from nas.design.distillation import BlockDistillation
from nas.run.reporting import QUIET
from nas.search.limits import Limit
from nas.search.space_design import BlockTable, block_table
from supernet.families.family import load_family
from supernet.families.staged_file import load_space
from supernet.train.checkpoint import Weights, save_weights

DEVICE = "systolic:bitfusion"
CLASSES = tuple(map(str, range(10)))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supernet that knows nothing, which is enough to be imitated."""
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    net = family.supernet(rng=np.random.default_rng(0))
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    save_weights(path, Weights(net.state_dict(), "digits-mbconv", CLASSES))
    return path


def words(teacher: Path, folder: Path, *more: str) -> list[str]:
    quick = ("--steps", "2", "--samples", "2", "--images", "128", "--evaluations", "20")
    given = ("--teacher", str(teacher), "--types", "fused,separable", "--device", DEVICE)
    return ["spaces", "design", *given, *quick, "-o", str(folder), *more]


def design(teacher: Path, folder: Path, *more: str) -> tuple[dict[str, Any], str]:
    """What the command gives, and what it says."""
    out, said = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        assert main([*words(teacher, folder, *more), "--json"]) == 0
    return json.loads(out.getvalue()), said.getvalue()


@pytest.fixture(scope="module")
def finished(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A finished design: its folder, and what the command gave and said."""
    folder = tmp_path_factory.mktemp("design")
    return (folder, *design(teacher, folder))


@pytest.mark.slow
def test_a_designed_space_is_one_to_run(finished: tuple[Path, dict[str, Any], str]) -> None:
    folder, found, said = finished
    path = folder / "space.json"
    assert found["space"] == str(path)
    space = load_space(path)
    assert space.title == "designed"
    assert {stage.block for stage in space.stages} <= {"fused", "separable"}
    assert all(len(stage.widths) == 2 for stage in space.stages)
    family = load_family(str(path), in_channels=1, classes=10)
    assert family.name == found["name"]
    origin = json.loads(path.read_text())["origin"]
    assert origin["device"] == "bitfusion"
    assert origin["score"] == found["score"] >= found["best_uniform_score"]
    assert found["scored"] <= 20
    assert "216 spaces: 3 stages, 2 block types" in said
    assert "6 of 6 (stage, type) to distil, about" in said


@pytest.mark.slow
def test_what_is_known_is_not_learned_again(
    finished: tuple[Path, dict[str, Any], str],
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, first, _ = finished
    again_in = tmp_path / "again"
    shutil.copytree(folder, again_in)
    (again_in / "blocks" / "s1-fused.json").unlink()  # as if it had been killed before that
    learned: list[tuple[int, str]] = []
    kept = read_json(folder / "blocks" / "s1-fused.json", blocks.Losses.SCHEMA)["losses"]

    def watched(one: BlockDistillation, told: Callable[[], None]) -> np.ndarray:
        learned.append((one.s, one.block))
        return np.array(kept)

    monkeypatch.setattr(blocks, "losses", watched)
    again, said = design(teacher, again_in)
    assert learned == [(1, "fused")]
    assert "1 of 6 (stage, type) to distil" in said
    assert "0 of" in said.partition("units to measure")[0].rpartition(";")[2]
    assert {**again, "space": ""} == {**first, "space": ""}
    design(teacher, again_in, "--seed", "1")  # other draws: all of it
    assert len(learned) == 7


def made_up_table() -> BlockTable:
    rng = np.random.default_rng(0)
    return block_table(
        {(s, t, w, 0): rng.uniform(1, 2, (30, 2)) * [1, 1e-4] for s, t, w in np.ndindex(2, 2, 3)}
    )


def test_limits_are_designed_for() -> None:
    table = made_up_table()
    free = designed.design(table, (), seed=0, networks=2000, reporter=QUIET)
    assert free.share == pytest.approx((0.5,), abs=0.2)
    shares = (Limit(0.6, relative=True), Limit(0.8, relative=True))
    found = designed.design(table, shares, seed=0, networks=2000, reporter=QUIET)
    assert found.limits_s[1] / found.limits_s[0] == pytest.approx(0.8 / 0.6)
    absolute = designed.design(table, [Limit(free.limits_s[0])], seed=0, networks=2000, reporter=QUIET)
    assert absolute.limits_s == free.limits_s
    np.testing.assert_array_equal(absolute.evolved.best, free.evolved.best)


def test_a_limit_that_nothing_meets_is_refused() -> None:
    table = made_up_table()
    with pytest.raises(TrilobitError, match=r"at most 1 us in int8; the fastest one drawn takes 2\d\d us"):
        designed.design(table, [Limit(1e-6)], seed=0, networks=2000, reporter=QUIET)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--types", "fused,swin"), "--types fused,swin"),
        (("--max-latency", "soon"), "limit 'soon' on latency"),
        (("--steps", "0"), "design.steps must be a whole number from 1 to 1,000,000, got 0"),
        (("--samples", "-3"), "design.samples must be a whole number from 1 to 1,000,000, got -3"),
        (("--images", "4"), "256 training images are needed to learn from, got 132"),
        (("--seed", "-1"), "design.seed must be a whole number from 0"),
        (("--title", " "), "--title must not be empty"),
        (("--device", "abacus"), "got 'abacus'"),
        (("--teacher", "nowhere.pt"), "nowhere.pt: no such checkpoint"),
        (("--teacher", "shipped:gpt"), "no checkpoint 'gpt' is shipped"),
        (("--data", "mnist"), "mnist"),
    ],
)
def test_bad_input_is_one_line(
    more: tuple[str, ...], said: str, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(teacher, tmp_path / "design", *more)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("nas: ")
    assert said.replace("'", "") in line.replace("'", "")
    assert not (tmp_path / "design" / "space.json").exists()


def test_without_a_teacher_it_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "design", "-o", str(tmp_path)]) == 2
    assert "nas train --data digits -o DIR" in capsys.readouterr().err


def test_a_damaged_file_of_losses_is_named(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "design" / "blocks" / "s0-fused.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert main(words(teacher, tmp_path / "design")) == 2
    assert f"{path}: not whole JSON" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["space.json", "missing.json"])
def test_a_broken_space_is_one_line_for_nas_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.json").write_text('{"schema": "space/1", "stages": []}')
    assert main(["profile", "--space", str(tmp_path / name), "-o", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert name in line
