"""What `nas tune` prints in the end."""

from pathlib import Path

from hw_profiles.documents import write_document
from nas.cli.tune import print_front
from nas.run.reporting import PlainReporter
from tests.nas.tune.fronts import front


def test_a_reference_that_fails_says_why(tmp_path: Path) -> None:
    lines: list[str] = []
    write_document(tmp_path / "front.json", front())
    printed = print_front(tmp_path / "front.json", PlainReporter(lines.append))
    assert "dynamic fails: Non-zero status <code>" in lines
    assert not any("defaults fails" in line for line in lines)
    assert [row["id"] for row in printed["front"]] == ["aaa", "abb", "ccc"]
