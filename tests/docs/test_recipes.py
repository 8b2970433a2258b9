"""Every recipe of docs/recipes works as it is written: files, entry points, code."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hw_profiles.graph import formats
from hw_profiles.graph.ops import OPS
from nas.cli.main import main
from nas.emit.operations import NODES
from supernet.formats.loading import load_format
from supernet.graph.operations import TORCH

OTHERS = ("README", "adb", "ssh", "tune")  # have tests of their own
RECIPES = sorted(p for p in (Path(__file__).parents[2] / "docs/recipes").glob("*.md") if p.stem not in OTHERS)
BLOCKS = re.compile(r"```(python|toml|sh)\n(.*?)```", re.DOTALL)
MODULE = re.compile(r"# (\w+)\.py\n")
LONGEST = 90  # lines: a recipe is at most a page


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, from which nothing stays imported or registered."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    tables: list[dict[str, Any]] = [
        cast("dict[str, Any]", t) for t in (OPS, TORCH.functions, NODES.functions)
    ]
    kept = [dict(table) for table in tables]
    yield tmp_path
    for table, entries in zip(tables, kept, strict=True):
        table.clear()
        table.update(entries)
    load_format.cache_clear()
    formats._of_plugin.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def install(site: Path, toml: str) -> None:
    """Make what `pip install` makes of the entry points in a `pyproject.toml`."""
    lines: list[str] = []
    for group, points in tomllib.loads(toml)["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    folder = site / "recipe-1.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: recipe\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_recipe_works_as_written(page: Path, site: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= LONGEST
    names: dict[str, object] = {}
    for language, code in BLOCKS.findall(text):
        if language == "toml":
            install(site, code)
        elif language == "sh":
            for line in code.splitlines():
                assert main(line.split()[1:]) == 0, line
        elif module := MODULE.match(code):
            (site / f"{module[1]}.py").write_text(code)
        else:
            exec(compile(code, str(page), "exec"), names)
