"""Words that the glossary lists as no longer used stand neither in pages nor in what commands print."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("nas", "supernet", "predictors", "hw_profiles")
RETIRED = re.compile(
    r"\b(damages?|aims?|pulses?|crowd|skeletons?|evened|novelty|gauge|corners?)\b", re.IGNORECASE
)
# what stays readable because people's files and command lines hold it, or means something else
ALLOWED = (
    r"damage\.json|damage/1",  # the file's name
    r"--aim\b|\[search\] aims",  # the option's name
)
NOT_PAGES = ("decisions.md", "glossary.md", "CHANGELOG.md", "api.md")  # history, the list itself, generated


def retired(text: str) -> list[str]:
    """Return the retired words in a text."""
    return RETIRED.findall(re.sub("|".join(ALLOWED), "", text))


def printed(path: Path) -> Iterator[ast.Constant]:
    """Yield the sentences in a module: its string literals of several words that are no docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    docstrings = {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        said = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()
        if said and id(node) not in docstrings:
            yield node


def test_no_message_has_a_retired_word() -> None:
    modules = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert not [
        f"{path.relative_to(ROOT)}:{node.lineno}: {words}"
        for path in modules
        if retired(path.read_text())
        for node in printed(path)
        if (words := retired(str(node.value)))
    ]


def test_no_page_has_a_retired_word() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "supernet/zoo").glob("*.md")]
    pages += (ROOT / "nas").rglob("*.j2")
    assert not [
        f"{page.relative_to(ROOT)}: {words}"
        for page in pages
        if page.name not in NOT_PAGES and (words := retired(page.read_text()))
    ]
