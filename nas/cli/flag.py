"""One option on the command line, and options under one heading."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hw_profiles.errors import TrilobitError
from hw_profiles.options import Option
from nas.run.command_sections import command_options
from nas.run.config import section_options
from nas.run.config_file import NO_LIMIT
from nas.run.tune_config import tune_options
from nas.search.limits import parse_bound, parse_limit
from nas.search.objectives import objective

LIMITS = "constraints."
OPTIONS: Mapping[str, Option] = {**section_options(), **command_options(), **tune_options()}

# once; several joined by commas; once per value; or nothing but the flag
Form = Literal["once", "list", "each", "on"]


@dataclass(frozen=True)
class Flag:
    """One option on the command line.

    Attributes:
        words: `--name`, and others that mean the same.
        key: of the option, `section.key`, or `constraints.OBJECTIVE` for a limit; `constraints.` for one on
            any objective.
        metavar: what stands for the value in `--help`.
        help: a line without the default and the range, which are the option's.
        form: how values are given.
        parse: what reads a value where its option does not.
    """

    words: str
    key: str
    metavar: str
    help: str
    form: Form = "once"
    parse: Callable[[str], Any] | None = None

    def read(self, text: str) -> Any:
        """Return the value that `text` gives.

        Raises:
            TrilobitError: it is not allowed; names the flag, the option and what is allowed.
        """
        try:
            if self.parse is not None:
                return self.parse(text)
            if self.key == LIMITS:
                name, limit = parse_bound(text)
                return name, _read_limit(name, limit)
            if self.key.startswith(LIMITS):
                return _read_limit(self.key.removeprefix(LIMITS), text)
            option = OPTIONS[self.key]
            if self.form == "list":
                return tuple(option.read(part.strip()) for part in text.split(","))
            return option.read(text)
        except TrilobitError as error:
            raise TrilobitError(f"{self.words.split()[0]}: {error}") from None

    @property
    def hint(self) -> str:
        """What `--help` says after the line: range and default."""
        option = OPTIONS.get(self.key)
        if option is None or self.form == "on":
            return ""
        parts = [str(option.range)] if option.range else []
        default = ",".join(map(str, option.default)) if option.many else option.default
        if default not in ("", None) and "default" not in self.help:
            parts.append(f"default: {default}")
        return f" ({'; '.join(parts)})".replace("%", "%%") if parts else ""


@dataclass(frozen=True)
class Group:
    """Flags under one heading of `--help`, of the same commands."""

    title: str
    commands: tuple[str, ...]
    flags: tuple[Flag, ...]


def _read_limit(name: str, text: str) -> str:
    if text != NO_LIMIT:
        parse_limit(text, objective(name))
    return text
