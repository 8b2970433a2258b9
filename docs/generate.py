"""Writes what is generated in docs/: whatever stands between `<!-- made: KIND WHAT -->` and `<!-- end -->`.

Run by `make docs`; tests/docs/test_pages.py checks that nothing is out of date. Nothing else writes there.
"""

import ast
import inspect
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from benchmarks.headlines import headlines
from docs.public import public
from nas.cli.command_line import HEADINGS, command_parser
from nas.cli.flag import OPTIONS
from nas.cli.flags import CONFIGURED, RUN_GROUPS
from nas.cli.main import TEXTS

PACKAGES = ("hw_profiles", "supernet", "predictors", "nas")
DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- made: (\w+) ?(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
ATTRIBUTE = re.compile(r"^    (\w[\w, ]*): (.*?)(?=^    \w[\w, ]*: |^\S|\Z)", re.MULTILINE | re.DOTALL)
UNITS = {"_s": "s", "_ms": "ms", "_us": "us", "_bytes": "bytes", "_j": "J", "_at": "UTC"}


def main() -> None:
    """Write every page anew."""
    for page in pages():
        before = page.read_text()
        if (after := made(before)) != before:
            page.write_text(after)
            print(page.relative_to(DOCS.parent))


def pages() -> list[Path]:
    """Return all pages of docs/."""
    return sorted(DOCS.rglob("*.md"))


def made(text: str) -> str:
    """Return a page with its generated parts as they are now."""
    return BLOCK.sub(lambda match: f"{match[1]}{MAKERS[match[2]](match[3])}\n{match[4]}", text)


def page_of(command: str) -> str:
    """Return the file name of a command's page."""
    return f"{command.replace(' ', '-')}.md"


# -- commands -----------------------------------------------------------------------------------------


def index(_: str) -> str:
    """Return the list of all commands under their headings."""
    lines = []
    for heading, names in HEADINGS.items():
        lines += [f"\n**{heading[0].upper()}{heading[1:]}**\n", "| command | what it does |", "|---|---|"]
        lines += [f"| [`nas {name}`]({page_of(name)}) | {TEXTS[name]} |" for name in names]
    return "\n".join(lines).strip()


def options(command: str) -> str:
    """Return the tables of a command's options; a group that several take stands on one page."""
    groups = command_parser(command, TEXTS[command])._action_groups
    parts = [_group(command, group.title or "", group._group_actions) for group in groups]
    return "\n\n".join(part for part in parts if part)


def _group(command: str, title: str, actions: list[Action]) -> str:
    listed = [action for action in actions if action.dest != "help" and action.help != SUPPRESS]
    if not listed:
        return ""
    if (home := _home(title)) not in ("", command):
        names = ", ".join(f"`{action.option_strings[0]}`" for action in listed)
        return f"**{title}** ([nas {home}]({page_of(home)}#options)): {names}"
    heading = "" if title in ("options", "positional arguments") else f"**{title}**\n\n"
    rows = (_option_row(action) for action in listed)
    return heading + "\n".join(["| option | in `run.toml` | meaning |", "|---|---|---|", *rows])


def _home(title: str) -> str:
    """Return the command on whose page a group stands; none for groups that one command has."""
    for group in RUN_GROUPS:
        if group.title == title:
            return "run" if group.commands == CONFIGURED else group.commands[-1]
    return ""


def _option_row(action: Action) -> str:
    words = ", ".join(f"`{word}`" for word in action.option_strings) or f"`{action.metavar or action.dest}`"
    if action.option_strings and action.metavar:
        names = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
        words += f" `{names}`"
    section, _, key = action.dest.rpartition(".")
    setting = f"`[{section}] {key}`" if section else f"`{key}`" if action.dest in OPTIONS else ""
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"| {words} | {setting} | {text.replace('|', '&#124;')} |"


# -- documents ----------------------------------------------------------------------------------------


def document(name: str) -> str:
    """Return the table of the fields of a dataclass `module:Class`, those of classes inside it after them."""
    rows = [f"| `{path}` | {kind} | {meaning} |" for path, kind, meaning in field_rows(resolve_name(name))]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows])


def field_rows(kind: Any) -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of every field, depth first; a class that was shown is not shown again."""
    return _field_rows(kind, "", set())


def _field_rows(kind: Any, prefix: str, shown: set[Any]) -> Iterator[tuple[str, str, str]]:
    shown.add(kind)
    hints, meanings = get_type_hints(kind, include_extras=True), _meanings(kind)
    for field in fields(kind):
        words, inner, suffix = _kind_words(hints[field.name], field.name)
        meaning = meanings.get(field.name, "")
        yield f"{prefix}{field.name}", words + _optional(field), meaning
        for each in inner:
            if each not in shown:
                yield from _field_rows(each, f"{prefix}{field.name}{suffix}.", shown)


def _optional(field: Field[Any]) -> str:
    return "" if field.default is MISSING and field.default_factory is MISSING else ", optional"


def _kind_words(hint: Any, name: str) -> tuple[str, tuple[Any, ...], str]:
    """Return a type in JSON's words, the dataclasses that it may hold, and where those stand in it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind_words(arguments[0], name)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments), (), ""
    if origin in (Union, UnionType):
        kinds = [_kind_words(kind, name) for kind in arguments if kind is not type(None)]
        null = ["null"] if type(None) in arguments else []
        words = " or ".join(dict.fromkeys([*(kind[0] for kind in kinds), *null]))
        return words, tuple(each for kind in kinds for each in kind[1]), kinds[0][2]
    if origin is tuple:
        words, inner, suffix = _kind_words(arguments[0], name)
        return f"list of {words}", inner, f"[]{suffix}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        words, inner, suffix = _kind_words(arguments[1], name)
        return f"object of {words}", inner, f".NAME{suffix}"
    if is_dataclass(hint):
        return "object", (hint,), ""
    return (
        {int: f"integer{_unit(name)}", float: f"number{_unit(name)}", str: "text", bool: "boolean"}.get(
            hint, "any"
        ),
        (),
        "",
    )


def _unit(name: str) -> str:
    """Return the unit that a field's name ends in."""
    if "_per_" in name and not name.startswith("per_"):
        return ""
    return next((f", {unit}" for end, unit in UNITS.items() if name.endswith(end)), "")


def _meanings(kind: Any) -> dict[str, str]:
    """Return what the `Attributes:` of a class and of those that it extends say, by field."""
    meanings: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        section = inspect.cleandoc(ancestor.__doc__ or "").partition("Attributes:\n")[2]
        for names, text in ATTRIBUTE.findall(section):
            meanings |= dict.fromkeys(re.split(r",\s*", names), " ".join(text.split()).rstrip("."))
    return meanings


# -- the tree -----------------------------------------------------------------------------------------


def folders(_: str) -> str:
    """Return what every folder of the packages is for, in the words of its `__init__.py`."""
    lines = ["| folder | what is in it |", "|---|---|"]
    for package in PACKAGES:
        for path in sorted((DOCS.parent / package).rglob("__init__.py")):
            words = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
            name = path.parent.relative_to(DOCS.parent).as_posix()
            lines.append(f"| `{name}` | {' '.join(words.split())} |")
    return "\n".join(lines)


MAKERS: Mapping[str, Callable[[str], str]] = {
    "index": index,
    "options": options,
    "fields": document,
    "figures": headlines,
    "folders": folders,
    "public": public,
}

if __name__ == "__main__":
    sys.exit(main())
