"""What `make` installs: a search needs no developers' tools."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(target: str, *more: str) -> str:
    words = ["make", "-n", target, "VENV=/nowhere", *more]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_search_installs_no_tools_of_developers() -> None:
    said = commands("search")
    assert "/nowhere/bin/nas run" in said
    assert "dev" not in said.replace("/dev/", "")


@pytest.mark.parametrize("target", ["test", "check", "setup"])
def test_tests_and_checks_do(target: str) -> None:
    assert "[dev,dashboard]" in commands(target)


def test_torch_may_come_from_elsewhere() -> None:
    assert "torch==2.13.0 --index-url https://x/cpu" in commands(
        "search", "TORCH=torch==2.13.0 --index-url https://x/cpu"
    )
