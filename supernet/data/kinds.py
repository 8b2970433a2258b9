"""Kinds of data, in words: what networks read of it, what it asks of them, and what to call its examples."""

from collections.abc import Mapping
from typing import Literal

Reads = Literal["images", "tokens"]
Answers = Literal["class", "token", "next"]  # what a network says, and data has right answers to
ANSWERS: Mapping[Answers, str] = {
    "class": "the class of each example",
    "token": "the class of each token",
    "next": "the token that follows each",
}
SIZES: Mapping[Reads, str] = {"images": "pixels", "tokens": "tokens"}  # what the size of an example is in
_EXAMPLES: Mapping[Reads, str] = {"images": "images", "tokens": "texts"}


def examples_called(reads: Reads | None) -> str:
    """Return what to call examples of which networks read so much.

    >>> examples_called("tokens"), examples_called(None)
    ('texts', 'examples')
    """
    return "examples" if reads is None else _EXAMPLES[reads]
