"""Python source: that of the interpreter's own standard library, and what each of its bytes is part of."""

import io
import keyword
import sysconfig
import token
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from supernet.data.text_files import different
from supernet.data.tokens import Bytes

CLASSES = ("whitespace", "keyword", "name", "number", "string", "comment", "operator")
# tests of the library, what others installed, tables of characters, documentation as strings
LEFT_OUT = ("test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data")
LARGEST_FILE = 2**22  # bytes; the library's largest has 0.2 MB

_INDEX = {name: index for index, name in enumerate(CLASSES)}
_LABELS = {
    token.NUMBER: _INDEX["number"],
    token.STRING: _INDEX["string"],
    token.COMMENT: _INDEX["comment"],
    token.OP: _INDEX["operator"],
    token.ERRORTOKEN: _INDEX["operator"],  # signs that mean nothing, such as $
    # pieces of f- and t-strings, where the interpreter tells them apart (3.12, 3.14)
    **{
        number: _INDEX["string"]
        for number, name in token.tok_name.items()
        if name.startswith(("FSTRING_", "TSTRING_"))
    },
}
_BETWEEN = 255  # no class: between tokens
_BLANK = np.isin(np.arange(256), np.frombuffer(b" \t\n\f\\", np.uint8))  # that tokens may have between them


def standard_library() -> Path:
    """Return the folder of the interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def read_source(folder: Path) -> dict[str, bytes]:
    """Return the different Python files of a folder by path inside, as UTF-8 with `\\n` at the ends of lines;
    those that are not Python source are left out.

    Raises:
        TrilobitError: none there.
    """
    texts = {}
    for path in _files(folder) if folder.is_dir() else ():
        text = _decoded(path)
        if text:
            texts[path.relative_to(folder).as_posix()] = text.encode()
    if not texts:
        raise TrilobitError(
            f"{folder}: no Python source (*.py), which interpreters packed into one file come without; "
            "text:PATH reads text from anywhere"
        )
    return different(texts)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a folder and of those in it that are not left out."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in LEFT_OUT and not path.is_symlink():
                yield from _files(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


def _decoded(path: Path) -> str:
    """Return a file's text by the encoding that it declares; empty where it has no such text."""
    if path.stat().st_size > LARGEST_FILE:
        return ""
    data = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
        text.encode()
    except (SyntaxError, UnicodeError, LookupError):
        return ""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def token_classes(source: bytes) -> Bytes | None:
    """Return (b,) uint8 for each byte of UTF-8 source the index in `CLASSES` of what it is part of, as the
    standard library's `tokenize` says; None where that cannot read it.

    What lies between tokens is whitespace, the backslash that joins lines included. In f-strings of Python
    3.12 and later the expressions are told apart from the string, before they are part of it.
    """
    text = source.decode()
    try:
        spans = np.array(list(_spans(text)), np.int64).reshape(-1, 3)
    except (tokenize.TokenError, SyntaxError):  # of which IndentationError is one
        return None
    data = np.frombuffer(source, np.uint8)
    bounds = np.concatenate([[0], _byte_positions(text)[spans[:, :2]].ravel(), [len(data)]])
    sizes = np.diff(bounds)  # of what lies before the first token, the token, what lies before the next...
    if sizes.min() < 0:
        return None
    labels = np.full(len(sizes), _BETWEEN, np.uint8)
    labels[1::2] = spans[:, 2]
    labels = np.repeat(labels, sizes)
    between = labels == _BETWEEN
    # doubled braces of f-strings: `tokenize` gives one of the two
    labels[between] = np.where(_BLANK[data[between]], _INDEX["whitespace"], _INDEX["string"])
    return labels


def _spans(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield where each token that is no whitespace begins and ends, in characters, and its class."""
    lines = np.cumsum([0, *(len(line) + 1 for line in text.split("\n"))]).tolist()
    for kind, word, (row, column), (end_row, end_column), _ in tokenize.generate_tokens(
        io.StringIO(text).readline
    ):
        if kind == token.NAME:
            label = _INDEX["keyword" if keyword.iskeyword(word) else "name"]
        elif kind in _LABELS:
            if word.isspace():  # an error token before the end of a line
                continue
            label = _LABELS[kind]
        else:
            continue
        yield lines[row - 1] + column, lines[end_row - 1] + end_column, label


def _byte_positions(text: str) -> NDArray[np.int64]:
    """Return (characters + 1,) where each character begins in UTF-8, and where the text ends."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
    return np.concatenate([[0], np.cumsum(widths, dtype=np.int64)]).astype(np.int64)
