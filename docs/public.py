"""Signatures and docstrings of the public names, for docs/api.md."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import nas

WIDTH = 100  # of a signature that stands on one line


def public(names: str) -> str:
    """Return a section for each public name in `names`, joined by blanks: signature, then what its docstring
    says; of a class its attributes and methods too.
    """
    return "\n\n".join(part for name in names.split() for part in _section(name, getattr(nas, name)))


def _section(name: str, value: Any) -> Iterator[str]:
    yield f"### nas.{name}"
    if not inspect.isclass(value):
        yield _signature(f"nas.{name}", value)
        yield _words(value)
        return
    yield _words(value)
    for member, attribute in vars(value).items():
        if member.startswith("_") or not inspect.getdoc(attribute):
            continue
        if isinstance(attribute, property):
            yield f"`.{member}`: {_words(attribute)}"
        elif inspect.isfunction(attribute):
            yield f"`.{member}{_parameters(attribute)}`: {_words(attribute)}"


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [str(parameter) for parameter in signature.parameters.values()]
    if any(parameter.kind == parameter.KEYWORD_ONLY for parameter in signature.parameters.values()):
        first = next(i for i, p in enumerate(signature.parameters.values()) if p.kind == p.KEYWORD_ONLY)
        parameters.insert(first, "*")
    answer = signature.return_annotation
    shown = f" -> {inspect.formatannotation(answer) if not isinstance(answer, str) else answer}"
    line = f"{name}({', '.join(parameters)}){shown}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){shown}"
    return f"```python\n{_short(line)}\n```"


def _parameters(function: Any) -> str:
    parameters = [*inspect.signature(function).parameters.values()][1:]
    return _short(f"({', '.join(map(str, parameters))})")


def _short(text: str) -> str:
    """Return a signature without the modules of its types."""
    text = re.sub(r"<nas\.run\.reporting\.Quiet object at 0x[0-9a-f]+>", "QUIET", text)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("'", '"').replace('"""', '"')


def _words(value: Any) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    lines = []
    for line in inspect.cleandoc(value.__doc__ or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns):", line):
            lines += [f"*{line[:-1]}*", ""]
        elif match := re.match(r"    (\w[\w, ]*): (.*)", line):
            lines.append(f"- `{match[1]}`: {match[2]}")
        else:
            lines.append(f"  {line.strip()}" if line.startswith("    ") else line)
    return "\n".join(lines).strip()
