"""`import nas`: the names that may be relied on, and what importing them costs."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import nas

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "scipy", "sklearn", "plotly", "rich", "optuna", "tvm", "onnx", "onnxruntime", "pandas")
VERBS = ("load", "search", "profile", "export", "verify", "bench")
LIGHT = ("import nas", "from nas.cli.main import main", "main(['--help'])", "main(['formats'])")


def modules_after(code: str) -> set[str]:
    """Return what a fresh interpreter has loaded after some code."""
    command = f"import sys, json, contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n {code}\n"
    command += "print(json.dumps([*sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_importing_and_asking_for_help_loads_no_engine() -> None:
    """One after the other: what one loads is loaded at the end."""
    assert not set(HEAVY) & modules_after("; ".join(LIGHT))


def test_every_name_is_there_and_says_what_it_is() -> None:
    for name in nas.__all__:
        value = getattr(nas, name)
        assert value.__name__ == name
        assert value.__doc__
    assert set(nas.__all__) <= set(dir(nas))
    with pytest.raises(AttributeError, match="module 'nas' has no attribute 'serach'"):
        _ = nas.serach


def test_types_are_seen_where_names_are_lazy() -> None:
    """What a type checker reads, and what is loaded, are the same names of the same modules."""
    [guarded] = [node for node in ast.parse((ROOT / "nas" / "__init__.py").read_text()).body
        if isinstance(node, ast.If)]  # fmt: skip
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == nas._PUBLIC


def test_functions_are_shown_where_folders_have_their_names() -> None:
    code = "import nas.search.units, nas.export.written, nas; from nas.search import pareto; "
    assert "nas.search.pareto" in modules_after(code + "assert not {'search', 'export'} & vars(nas).keys()")
    import nas.search.loop

    assert all(callable(getattr(nas, verb)) for verb in VERBS)


def test_terminals_and_command_lines_are_known_to_the_command_alone() -> None:
    def imported(path: Path) -> Sequence[str]:
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        return [*plain, *(str(node.module) for node in nodes if isinstance(node, ast.ImportFrom))]

    packages = ("hw_profiles", "supernet", "predictors", "nas")
    modules = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    others = [path for path in modules if ROOT / "nas" / "cli" not in path.parents]
    fenced = {"argparse", "rich"}
    naming = [path for path in others if any(name in path.read_text() for name in fenced)]
    roots = {path: {name.partition(".")[0] for name in imported(path)} for path in naming}
    assert not {str(path) for path, names in roots.items() if names & fenced}
