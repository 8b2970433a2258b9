"""Texts of classes from a CSV file: one column has the text, another the class."""

import array
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from supernet.data.tokens import Texts

DELIMITERS = (",", ";", "\t")  # the header's: the first that gives it both columns
MOST_CLASSES = 1_000
MOST_OF_LINE = 2**20  # characters
MOST_BYTES = 2**30  # of all texts, cut to their length


@dataclass(frozen=True)
class Table:
    """What was read.

    Attributes:
        classes: different labels, sorted.
        texts: all of them, in the order of the file.
    """

    classes: tuple[str, ...]
    texts: Texts


def read_table(path: Path, *, text: str, label: str, length: int) -> Table:
    """Return the texts of a CSV file with a header, cut to `length` bytes of UTF-8 each, by class.

    Quoting is what the standard library's `csv` reads; columns are divided by a comma, a semicolon or a tab;
    bytes that are no UTF-8 stay what they are.

    Args:
        text, label: the names of the two columns.

    Raises:
        TrilobitError: nothing there, no such column, a row without one, too many classes or too much text:
            names file and line.
    """
    if not path.is_file():
        raise TrilobitError(f"{path}: no such CSV file")
    if path.stat().st_size == 0:
        raise TrilobitError(f"{path}: empty; a CSV file with a header and the columns {text} and {label}")
    labels: dict[str, int] = {}
    content, ends, rows = bytearray(), array.array("q"), array.array("q")
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for line, words, name in _rows(file, path, text, label):
            content += words.encode("utf-8", "surrogateescape")[:length]
            ends.append(len(content))
            rows.append(labels.setdefault(name, len(labels)))
            if len(labels) > MOST_CLASSES:
                raise TrilobitError(
                    f"{path}, line {line}: more than {MOST_CLASSES:,} different values in column {label!r}: "
                    "is it a class? name another with label=COLUMN"
                )
            if len(content) > MOST_BYTES:
                raise TrilobitError(f"{path}, line {line}: more than {MOST_BYTES:,} bytes of text; cut them")
    classes = sorted(labels)
    place = np.zeros(len(classes), np.int64)
    place[[labels[name] for name in classes]] = np.arange(len(classes))
    stops = np.array(ends, np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), stops[:-1]])[: len(stops)]
    texts = Texts(
        np.frombuffer(bytes(content), np.uint8), starts, stops, place[np.array(rows, np.int64)], length
    )
    return Table(tuple(classes), texts)


def _rows(file: TextIO, path: Path, text: str, label: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, text and label of every row; empty lines are none."""
    line = 0
    try:
        header, delimiter = _header(file, path, text, label)
        reader = csv.reader(_lines(file, path), delimiter=delimiter, strict=True)
        columns = header.index(text), header.index(label)
        for row in reader:
            line = reader.line_num + 1  # after the header's
            if not row:
                continue
            if len(row) != len(header):
                raise TrilobitError(
                    f"{path}, line {line}: {len(row)} field{'' if len(row) == 1 else 's'} where the header "
                    f'has {len(header)}; texts with {delimiter!r} or line breaks in them go into "..."'
                )
            name = row[columns[1]].strip()
            if not name:
                raise TrilobitError(f"{path}, line {line}: nothing in column {label!r}; every row needs one")
            yield line, row[columns[0]], _readable(name)
    except csv.Error as error:
        raise TrilobitError(
            f"{path}, line {line + 1}: {error}; a field has at most {csv.field_size_limit():,} characters, "
            'and quotes in a text are doubled: "so ""it"" is"'
        ) from None


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines after the header; a file without ends of lines is not read whole."""
    for number, line in enumerate(iter(lambda: file.readline(MOST_OF_LINE), ""), 2):
        if len(line) == MOST_OF_LINE:
            raise TrilobitError(
                f"{path}, line {number}: more than {MOST_OF_LINE:,} characters; is it a CSV file?"
            )
        yield line


def _header(file: TextIO, path: Path, text: str, label: str) -> tuple[list[str], str]:
    """Return the names of the columns and what divides them."""
    line = file.readline(MOST_OF_LINE)
    headers = {}
    for delimiter in DELIMITERS:
        fields = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        headers[delimiter] = [field.strip() for field in fields]
        if {text, label} <= set(headers[delimiter]):
            return headers[delimiter], delimiter
    known = max(headers.values(), key=len)
    missing = next(name for name in (text, label) if name not in known)
    raise TrilobitError(
        f"{path}, line 1: no column {shown(missing)}; columns: {shown(_readable(', '.join(known)))}"
        f"{did_you_mean(missing, known)}; name others with ?text=COLUMN,label=COLUMN"
    )


def _readable(text: str) -> str:
    """Return text that can be written: bytes that were no UTF-8 replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
