"""The one error type that means: the person running the tool can mend this; and how its messages quote."""

import difflib
from collections.abc import Iterable
from typing import Any

from hw_profiles.redaction import redacted

SHOWN, READABLE = 60, 4_096  # characters of a value that an error quotes, and that it looks at


class TrilobitError(Exception):
    """Bad input or a broken file. The message gives the value, what was allowed and what to do next.

    The command line prints it as one line and exits with 2; every other exception is a bug and keeps its
    traceback.
    """


def shown(value: Any) -> str:
    """Return a value as an error quotes it: in one line, cut where it is long.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
        text = ""
    if not text or len(text) > READABLE:
        return f"{type(value).__name__} too long to show"
    text = redacted(text)  # before it is cut: half a URL no longer looks like one
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def one_line(error: Exception) -> str:
    """Return what an engine rejected something with, as a row of a table holds it."""
    first = next(iter(str(error).strip().splitlines()), "no message")
    return first if isinstance(error, TrilobitError) else f"{type(error).__name__}: {first}"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return a hint at the one or two known names that are most like `word`; empty where none is.

    >>> did_you_mean("nsga4", ("evolution", "nsga2", "nsga3", "tpe"))
    "; did you mean 'nsga3' or 'nsga2'?"
    """
    word = word[:SHOWN]
    close = difflib.get_close_matches(word, list(names), n=2)
    likeness = [difflib.SequenceMatcher(None, name, word).ratio() for name in close]
    best = [name for name, ratio in zip(close, likeness, strict=True) if ratio == likeness[0]]
    return f"; did you mean {' or '.join(map(repr, best))}?" if best else ""
