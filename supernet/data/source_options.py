"""Options behind the name of data: `PATH?length=256,step=64`."""

from collections.abc import Mapping

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from hw_profiles.options import Range


def split_options(argument: str) -> tuple[str, dict[str, str]]:
    """Return what stands before the `?`, and the options behind it as text.

    >>> split_options("notes.txt?length=64,step=8")
    ('notes.txt', {'length': '64', 'step': '8'})

    Raises:
        TrilobitError: what is no `NAME=VALUE`, or an option twice.
    """
    path, mark, text = argument.partition("?")
    given: dict[str, str] = {}
    for written in text.split(",") if mark and text else ():
        name, equals, value = written.partition("=")
        if not equals or not value or name in given:
            raise TrilobitError(f"{shown(written)} behind the ?: write NAME=VALUE,NAME=VALUE, each name once")
        given[name] = value
    return path, given


def known_options(source: str, given: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Raise where an option is not one of a source's.

    Raises:
        TrilobitError: names it, and those that there are.
    """
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise TrilobitError(f"unknown option {shown(name)} of {source}; known: {', '.join(known)}{hint}")


def number(source: str, name: str, given: Mapping[str, str], allowed: Range, *, default: int) -> int:
    """Return the whole number that an option has, or its default.

    Raises:
        TrilobitError: it is no whole number in the range.
    """
    if name not in given:
        return default
    text = given[name]
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if value not in allowed:
        raise TrilobitError(f"{name}={text[:20]} of {source}: a whole number {allowed}")
    return value
