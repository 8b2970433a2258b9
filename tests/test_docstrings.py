"""The examples in docstrings say what the code does."""

import doctest
import importlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("hw_profiles", "supernet", "predictors", "nas")
SHOWN = ">>> "


def examples(package: str) -> dict[str, doctest.TestResults]:
    """Return how the examples of every module that has some went, by the module's name."""
    paths = [path for path in sorted((ROOT / package).rglob("*.py")) if SHOWN in path.read_text()]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths
    ]
    return {name: doctest.testmod(importlib.import_module(name)) for name in names}


def test_examples_in_docstrings_are_right() -> None:
    results = {name: result for package in PACKAGES for name, result in examples(package).items()}
    assert not {name: result for name, result in results.items() if result.failed}
    assert sum(result.attempted for result in results.values()) > 50
