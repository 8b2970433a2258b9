"""What the packages offer has a user: in the packages themselves, or in the documents for people."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("hw_profiles", "supernet", "predictors", "nas")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
DOCUMENTS = [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs").rglob("*.md")]
REGISTERED = re.compile(r"[\w.]+:(\w+)")  # "module:attribute"
Function = ast.FunctionDef | ast.ClassDef

# Without a user, for a reason.
ALLOWED: Mapping[str, str] = {
    "round_even": "I-ViT's dialect of rounding, which tests compare ours with",
    "check_layer_norm": "the published guard of its norms, which tests hold ours against",
    "timed_library": "benchmarks/export_speed.py and tvm_vs_ort.py time what is shipped",
    "unreliable_layers": "benchmarks/profile_accuracy.py counts the rows that no time was left for",
    "open_exactly": "exact sums of ONNX Runtime, which tests compare files by",
    "from_published": "rows of public data as candidates, for benchmarks/published_rows.py",
    "to_published": "the inverse of the same",
    "load_images": "benchmarks of image classifiers begin with it",
    "get_next": "what ONNX Runtime's calibration calls",
}


def public(tree: ast.Module) -> Iterator[str]:
    """Yield the names of public functions, classes and methods."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in [*tree.body, *(member for each in classes for member in each.body)]:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name


def used(tree: ast.Module) -> Iterator[str]:
    """Yield every name that is read, called or registered; what is only imported is not used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from REGISTERED.findall(node.value)


def test_everything_public_has_a_user() -> None:
    trees = {path: ast.parse(path.read_text()) for path in MODULES}
    known = {name for tree in trees.values() for name in used(tree)}
    known |= {word for path in DOCUMENTS for word in re.findall(r"\w+", path.read_text())}
    unused = {str(path.relative_to(ROOT)): set(public(tree)) - known for path, tree in trees.items()}
    assert {name for names in unused.values() for name in names} == ALLOWED.keys(), unused
