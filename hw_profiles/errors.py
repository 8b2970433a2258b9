"""The one error type that means: the person running the tool can mend this; and how its messages quote."""

import difflib
from collections.abc import Iterable
from typing import Any

SHOWN = 60  # characters of a value that an error quotes


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
        text = f"{type(value).__name__} too long to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint at the one or two known names that are most like `word`; empty where none is.

    >>> did_you_mean("nsga4", ("evolution", "nsga2", "nsga3", "tpe"))
    "; did you mean 'nsga3' or 'nsga2'?"
    """
    close = difflib.get_close_matches(word[:SHOWN], list(known), n=2)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
