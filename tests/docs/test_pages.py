"""Pages: generated parts are up to date, every command has its page, links lead somewhere."""

import re
import subprocess
from pathlib import Path
from pkgutil import resolve_name

from docs.generate import BLOCK, field_rows, made, page_of, pages
from nas.cli.main import TEXTS

ROOT = Path(__file__).parents[2]
SECTIONS = ["When to use it", "Synopsis", "Options", "How it works", "Fields of its JSON", "Example"]
LINK = re.compile(r"\]\(([^)#:\s]*)(#[^)\s]*)?\)")
FILES = re.compile(
    r"\b(?:nas|supernet|predictors|hw_profiles|tests|benchmarks|docs|examples)/[\w/.-]*\w\.(?:py|toml|md)\b"
)
NAMES = re.compile(
    r"\b(?:nas|supernet|predictors|hw_profiles|benchmarks)(?:\.(?!py\b|md\b|toml\b)[A-Za-z_]\w*)+"
)
# documents of people who worked on this, which a reader of the repository does not have
ELSEWHERE = re.compile(r"\b(?:SPECS|LAB|DESIGN|REVIEW|STYLE)\.md|\b(?:SPECS|LAB|REVIEW) section")


def documents() -> list[Path]:
    return [*pages(), *ROOT.glob("*.md"), *(ROOT / "supernet/zoo").glob("*.md")]


def test_generated_parts_are_up_to_date() -> None:
    stale = [str(page.relative_to(ROOT)) for page in pages() if made(page.read_text()) != page.read_text()]
    assert not stale, f"run `make docs`: {stale}"


def test_every_command_has_a_page_in_one_form() -> None:
    folder = ROOT / "docs/commands"
    assert {page.name for page in folder.glob("*.md")} == {*map(page_of, TEXTS), "README.md"}
    wrong = []
    for command in TEXTS:
        text = (folder / page_of(command)).read_text()
        same = re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
        if (
            not text.startswith(f"# nas {command}\n\n> ")
            or not same
            or f"made: options {command} " not in text
        ):
            wrong.append(command)
    assert not wrong


def test_every_field_of_a_document_has_a_meaning() -> None:
    kinds = {
        match[3] for page in pages() for match in BLOCK.finditer(page.read_text()) if match[2] == "fields"
    }
    bare = [
        (kind, path) for kind in kinds for path, _, meaning in field_rows(resolve_name(kind)) if not meaning
    ]
    assert not bare, "say it under `Attributes:` of the class"


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of the headings of a page, and anchors that are set by hand."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = [
        re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.M)
    ]
    return {*heads, *re.findall(r'<a id="([^"]*)"', text)}


def test_links_lead_somewhere() -> None:
    broken = []
    for page in documents():
        for target, anchor in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (anchor and path.suffix == ".md" and anchor[1:] not in anchors(path)):
                broken.append(f"{page.relative_to(ROOT)}: {target}{anchor}")
    assert not broken


def exists(name: str) -> bool:
    """Return whether a dotted name leads to a module, or to something that its text defines."""
    here, parts = ROOT, name.split(".")
    while parts and (here / parts[0]).is_dir():
        here /= parts.pop(0)
    if not parts:
        return True
    module = here / f"{parts[0]}.py"
    word, path = (parts[1:2], module) if module.is_file() else (parts[:1], here / "__init__.py")
    return not word or (path.exists() and re.search(rf"\b{word[0]}\b", path.read_text()) is not None)


def test_code_that_pages_name_exists() -> None:
    gone = []
    for page in documents():
        if page.name in ("decisions.md", "CHANGELOG.md"):  # of their time
            continue
        text = page.read_text()
        gone += [f"{page.name}: {path}" for path in FILES.findall(text) if not (ROOT / path).exists()]
        gone += [f"{page.name}: {name}" for name in NAMES.findall(text) if not exists(name)]
    assert not gone


def test_nothing_cites_a_document_that_is_not_here() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = [
        ROOT / name
        for name in listed.splitlines()
        if name.endswith((".py", ".md", ".toml", ".j2", ".txt", ".yaml"))
    ]
    here = Path(__file__)
    assert not [
        str(path) for path in texts if path.exists() and path != here and ELSEWHERE.search(path.read_text())
    ]


def test_each_released_version_is_read_in_a_few_minutes() -> None:
    released = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[2:]  # after the title and what is to come
    assert released
    assert not [text.splitlines()[0] for text in released if len(text.split()) > 1_200]
