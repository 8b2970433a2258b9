"""`hw_profiles <- supernet <- predictors <- nas`, and what each may import besides."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from pkgutil import resolve_name

import pytest

from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.plugin import device_kind

ROOT = Path(__file__).parents[1]
PACKAGES = ("hw_profiles", "supernet", "predictors", "nas")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LONGEST = 450  # lines; longer modules do more than one thing

SEARCH = {
    "numpy",
    "scipy",
    "moocore",
    "supernet.space.space",
    "supernet.solvers.multiple_choice",
    "supernet.tasks.metric",
    "hw_profiles.errors",
    "hw_profiles.registry",
    "hw_profiles.streams",
    "nas.search",
}
# What a package, folder or module may import besides the standard library; the longest entry decides.
MAY_IMPORT: Mapping[str, set[str]] = {
    "hw_profiles": {"numpy", "hw_profiles"},
    "hw_profiles.runtimes.onnx_file": {"numpy", "hw_profiles", "onnx"},
    "hw_profiles.runtimes.tflite_micro.interpreter": {"numpy", "hw_profiles", "tflite_micro"},
    "hw_profiles.runtimes.litert.recipes": {"numpy", "hw_profiles", "ai_edge_quantizer"},
    "supernet": {
        "torch",
        "numpy",
        "PIL",
        "supernet",
        "hw_profiles.graph",
        "hw_profiles.measure.host",  # which processor trained, for people
        "hw_profiles.reference.integer_sums",
        "hw_profiles.documents",
        "hw_profiles.durations",
        "hw_profiles.errors",
        "hw_profiles.files",
        "hw_profiles.registry",
        "hw_profiles.options",
        "hw_profiles.streams",
    },
    # ONNX files are read with what reads them, and run where inference cannot tell the size of a tensor
    "supernet.imported": {
        *("numpy", "onnx", "onnx_ir", "onnxscript", "google.protobuf", "torch", "supernet.imported"),
        *("supernet.data.input_spec", "hw_profiles.graph", "hw_profiles.errors", "hw_profiles.runtimes"),
    },
    # the file of an imported model is read, and run with all its tensors as outputs
    "supernet.ptq": {
        *("torch", "numpy", "onnx", "supernet", "hw_profiles.graph", "hw_profiles.errors"),
        *("hw_profiles.documents", "hw_profiles.files"),
        *("hw_profiles.options", "hw_profiles.reference.integer_sums", "hw_profiles.runtimes.ort.runtime"),
    },
    # scales are judged by what integer operators make of them
    "supernet.ptq.integer_only": {
        *("torch", "numpy", "supernet", "hw_profiles.graph", "hw_profiles.reference"),
    },
    # weights are fitted to what integer operators make of them
    "supernet.ptq.integer_refit": {
        *("numpy", "supernet.formats", "supernet.graph", "hw_profiles.graph", "hw_profiles.reference"),
    },
    "supernet.graph.unit_numbers": {
        *("numpy", "supernet.graph", "hw_profiles.graph", "hw_profiles.reference.unit_numbers"),
    },
    "supernet.solvers": {"numpy", "scipy", "hw_profiles.errors", "supernet.solvers"},
    "supernet.tasks.image_sources": {
        *("numpy", "PIL", "sklearn", "supernet.data", "supernet.tasks", "supernet.registry", "hw_profiles")
    },
    "predictors": {
        "numpy",
        "sklearn",
        "threadpoolctl",
        "scipy",
        "torch",
        "predictors",
        "supernet.space.space",
        "supernet.families.family",
        "supernet.imported",
        "hw_profiles.graph",
        "hw_profiles.profiles.profile",
        "hw_profiles.profiles.latency_model",
        "hw_profiles.measure.measurement",
        "hw_profiles.errors",
        "hw_profiles.registry",
        "hw_profiles.streams",
    },
    "nas.search": SEARCH,
    "nas.search.algorithms.pymoo_nsga": SEARCH | {"pymoo"},
    "nas.search.algorithms.optuna_samplers": SEARCH | {"optuna"},
}


def dotted(path: Path) -> str:
    """The module's name."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


# folders of `hw_profiles` that every runtime builds on, and that import no engine
SHARED = {"hw_profiles", "hw_profiles.runtimes", "hw_profiles.measure", "hw_profiles.runtimes.transports"}
NAMES = frozenset(map(dotted, MODULES))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return every module imported anywhere in the file, `from package import module` as the module."""
    return tuple(imported(ast.parse((ROOT / path).read_text())))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield every module that is imported anywhere in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in NAMES else str(node.module) for name in inner)


def inside(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def allowed(module: str) -> set[str] | None:
    """The table's most specific entry; None where everything may be imported."""
    known = [entry for entry in MAY_IMPORT if inside(module, {entry})]
    return MAY_IMPORT[max(known, key=len)] if known else None


def engines_of(module: str) -> set[str]:
    """Return the engines that a module may import as a part of a runtime: those that a kind of device
    declares which stands in its folder, or imports from there.
    """
    kinds = {name: resolve_name(where.partition(":")[0]) for name, where in DEVICES.items()}
    declared = set[str]()
    for name, home in kinds.items():
        near = {home.__name__, *imports(Path(home.__file__).relative_to(ROOT))}
        if module.rpartition(".")[0] in {other.rpartition(".")[0] for other in near} - SHARED:
            declared |= set(device_kind(name).engines)
    return declared


def foreign_imports(path: Path) -> set[str]:
    """Return what the module imports beyond the standard library and what the table allows it."""
    allowance = allowed(dotted(path))
    outside = {name for name in imports(path) if name.split(".")[0] not in sys.stdlib_module_names}
    if allowance is None:
        return set()
    return {name for name in outside if not inside(name, allowance | engines_of(dotted(path)))}


def test_an_engine_of_a_runtime_is_imported_by_that_runtime_alone() -> None:
    everywhere = {"onnx"}  # the format of files, not what runs them
    engines = {module for name in DEVICES for module in device_kind(name).engines} - everywhere
    found = {
        str(path): names
        for path in MODULES
        if (names := {name for name in imports(path) if inside(name, engines)})
        and not inside(dotted(path), {"hw_profiles.runtimes"})
    }
    assert not found


def test_imports_only_what_the_table_allows() -> None:
    assert not {str(path): names for path in MODULES if (names := foreign_imports(path))}


def test_the_application_names_no_runtime_but_the_compiler_of_libraries() -> None:
    """Which one runs a file is the business of the run's device."""
    folders = {dotted(path.parent / "__init__.py") for path in MODULES}
    fenced = {name for name in folders if name.startswith("hw_profiles.runtimes.")}
    fenced -= {"hw_profiles.runtimes.analytical"}
    found = {str(path) for path in MODULES if any(inside(name, fenced) for name in imports(path))}
    libraries = {
        f"nas/export/library/{name}.py" for name in ("limits", "to_tvm", "check", "own", "policies", "tuned")
    }
    assert {path for path in found if path.startswith("nas/")} <= libraries


def test_the_table_names_only_what_exists() -> None:
    assert set(MAY_IMPORT) <= NAMES


def test_no_module_sits_in_a_circle() -> None:
    graph = {dotted(path): set(imports(path)) & NAMES - {dotted(path)} for path in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_no_two_folders_sit_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    parents = {dotted(path): dotted(path.parent / "__init__.py") for path in MODULES}
    for path in MODULES:
        others = {parents[name] for name in set(imports(path)) & NAMES}
        folders.setdefault(parents[dotted(path)], set()).update(others - {parents[dotted(path)]})
    try:
        TopologicalSorter(folders).prepare()
    except CycleError as error:
        pytest.fail(f"folders import each other: {' <- '.join(error.args[1])}")


def test_the_application_has_no_loose_modules() -> None:
    assert [path.name for path in sorted((ROOT / "nas").glob("*.py"))] == ["__init__.py"]


def test_no_module_is_too_long() -> None:
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in MODULES}
    assert not {path: n for path, n in lines.items() if n > LONGEST}


def python(code: str, folder: Path) -> str:
    """What a fresh interpreter in an empty folder and home prints, on either stream."""
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_importing_has_no_effect(tmp_path: Path) -> None:
    code = "import importlib, numpy; before = repr(numpy.random.get_state())\n"
    code += f"for name in {sorted(NAMES)}: importlib.import_module(name)\n"
    code += "assert before == repr(numpy.random.get_state()), 'seeded'"
    assert python(code, tmp_path) == ""
    assert not list(tmp_path.iterdir())


def test_engines_wait_until_they_are_needed(tmp_path: Path) -> None:
    engines = {"tvm", "pymoo", "plotly", "optuna", "onnxruntime", "sklearn", "distributed"}
    code = "import nas.cli.main, nas.search.searcher, hw_profiles.registry, sys\n"
    assert python(f"{code}print(*({engines} & set(sys.modules)))", tmp_path) == "\n"


def test_profiles_and_confined_processes_need_no_torch(tmp_path: Path) -> None:
    """Loading it takes longer than what most of these processes do."""
    texts = [(ROOT / path).read_text() for path in MODULES if path.parts[0] == "nas"]
    confined = set(re.findall(r'"(nas\.(?:checks|export|serving)[a-z_.]*):[a-z_]+"', "".join(texts)))
    assert {"nas.serving.serving", "nas.export.library.tuned", "nas.checks.network_tasks"} <= confined
    code = "import hw_profiles.profiles.profiler, hw_profiles.runtimes.analytical.recorded, sys\n"
    code += f"import {', '.join(sorted(confined))}\nprint('torch' in sys.modules)"
    assert python(code, tmp_path) == "False\n"
