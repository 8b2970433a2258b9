"""A file that does not do what the simulation says is not shipped; the others are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from nas.checks import check
from nas.checks import parity as verify
from nas.cli.main import main
from nas.export import build
from nas.run.reporting import QUIET, PlainReporter
from nas.run.run import find_run
from nas.stages import export


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def disagreeing(ids: set[int]) -> Any:
    """`check_parity`, but the files with these numbers, counted from 0, disagree."""
    asked = iter(range(1000))

    def check_parity(*arguments: Any) -> verify.Parity:
        if next(asked) in ids:
            raise check.DisagreementError("file and simulation agree on 56.00% of 359 images, below 99.5%")
        return verify.check_parity(*arguments)

    return check_parity


def test_a_network_whose_file_disagrees_is_left_out_and_named(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {path.name for path in (own_run / "export").iterdir() if path.is_dir()}
    monkeypatch.setattr(build, "check_parity", disagreeing({0}))
    lines: list[str] = []
    paths = export.run_export(find_run(own_run), PlainReporter(lines.append))
    (dropped,) = shipped - {path.parent.name for path in paths}
    line = f"not exported, {dropped}: file and simulation agree on 56.00% of 359 images"
    assert line in "\n".join(lines)
    assert len(paths) == len(shipped) - 1 > 0
    assert not (own_run / "export" / dropped).exists()
    assert all(json.loads(path.read_text())["parity"]["agreement"] >= 0.995 for path in paths)


def test_the_same_command_again_says_again_what_is_not_there(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "check_parity", disagreeing({0}))
    command = ["export", "-o", str(own_run), "--count", "2"]
    said = []
    for _ in range(2):
        assert main(command) == 0
        said.append([line for line in capsys.readouterr().out.splitlines() if "not exported, " in line])
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert "agree on 56.00%" in said[0][0]


def test_where_every_file_disagrees_nothing_is_exported_in_one_line(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "check_parity", disagreeing(set(range(100))))
    with pytest.raises(TrilobitError, match=r"no network can be exported: .*: file and simulation agree on"):
        export.run_export(find_run(own_run), QUIET)
    assert any((own_run / "export").iterdir())  # what was exported before stays
