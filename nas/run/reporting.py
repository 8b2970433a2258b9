"""How long work speaks to whoever started it: lines, tables and progress, without saying how they look.

Stages take a `Reporter`. `QUIET` says nothing, `PlainReporter` writes lines of text, and the command's own
reporter (`nas.cli.console`) draws on a terminal; nothing else of `nas` knows terminals.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from nas.run.progress import Lines, Update


class Add(Protocol):
    """Adds a kind of work; returns what updates it."""

    def __call__(self, title: str, total: int, end_s: float = ...) -> Update:
        """Add work of `total` items; `end_s` is when it ends at the latest, on the monotonic clock."""
        ...


@dataclass(frozen=True)
class Table:
    """A table as plain text, cell by cell.

    Attributes:
        columns: their headings.
        rows: one cell for each column.
        title: above it; empty for none.
        numbers: how many of the last columns hold numbers, which are aligned right.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    title: str = ""
    numbers: int = 0

    def lines(self) -> Iterator[str]:
        """Yield the table as lines of aligned text.

        >>> print(*Table(("unit", "n"), [("conv", "12"), ("add", "3")], numbers=1).lines(), sep="\\n")
        unit   n
        conv  12
        add    3
        """
        if self.title:
            yield self.title
        cells = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        first_number = len(self.columns) - self.numbers
        for row in cells:
            padded = (
                cell.rjust(width) if i >= first_number else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            yield "  ".join(padded).rstrip()


class Reporter(Protocol):
    """Receives what long work has to say."""

    def say(self, text: str) -> None:
        """Print one line of plain text."""
        ...

    def show(self, table: Table) -> None:
        """Print a table."""
        ...

    def status(self, text: str) -> AbstractContextManager[Callable[[str], None]]:
        """Show what is done in the block, for which no progress is known; yields what changes the text."""
        ...

    def progress(self) -> AbstractContextManager[Add]:
        """Show the progress of work in the block; yields `add(title, total)`, which returns
        `update(done, note)`.
        """
        ...


class Quiet:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def show(self, table: Table) -> None:
        """Drop the table."""

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show nothing."""
        yield lambda changed: None

    @contextmanager
    def progress(self) -> Iterator[Add]:
        """Show nothing."""
        yield lambda title, total, end_s=math.inf: lambda done, note: None


QUIET = Quiet()


@dataclass(frozen=True)
class PlainReporter:
    """Writes lines of text; progress is a line now and then.

    Attributes:
        write: takes each line, `print` for example.
    """

    write: Callable[[str], object] = print

    def say(self, text: str) -> None:
        """Write one line."""
        self.write(text)

    def show(self, table: Table) -> None:
        """Write a table, a line for each row."""
        for line in table.lines():
            self.write(line)

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Write what is done, once."""
        self.write(text)
        yield lambda changed: None

    @contextmanager
    def progress(self) -> Iterator[Add]:
        """Write where all work stands every half minute."""
        lines = Lines(self.write)
        with lines.regularly():
            yield lines.add


@contextmanager
def progress_bar(reporter: Reporter, title: str, total: int) -> Iterator[Update]:
    """Show one kind of work of `total` items, which begins at once; yields `update(done, note)`."""
    with reporter.progress() as add:
        update = add(title, total)
        update(0, "")
        yield update
