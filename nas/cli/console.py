"""The command's reporter: bars, spinners and tables on a terminal, lines of text where there is none."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from nas.run.progress import Lines, Update, Work
from nas.run.reporting import Add, Table

ID_WIDTH = 12


@dataclass(frozen=True)
class ConsoleReporter:
    """Reports on a console: on standard output, or on standard error where that carries JSON."""

    console: Console

    def say(self, text: str) -> None:
        """Print one line as it is: brackets in it are no markup, and the terminal wraps it."""
        self.console.print(text, markup=False, soft_wrap=True, highlight=False)

    def show(self, table: Table) -> None:
        """Print a table, drawn."""
        drawn = RichTable(
            title=escape(table.title) or None,
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        first_number = len(table.columns) - table.numbers
        for i, title in enumerate(table.columns):
            if i >= first_number:
                drawn.add_column(escape(title), justify="right", no_wrap=True)
            else:
                drawn.add_column(escape(title), min_width=_least_width(table, i))
        for row in table.rows:
            drawn.add_row(*map(escape, row))
        self.console.print(drawn)

    @contextmanager
    def status(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner beside the text."""
        with self.console.status(escape(text)) as shown:
            yield lambda changed: shown.update(escape(changed))

    @contextmanager
    def progress(self) -> Iterator[Add]:
        """Show a bar for each kind of work on a terminal, a line now and then where there is none."""
        if not self.console.is_terminal:
            lines = Lines(self.say)
            with lines.regularly():
                yield lines.add
            return
        with Progress(*_columns(), console=self.console) as bars:
            yield lambda title, total, end_s=math.inf: _bar(bars, Work(title, total, end_s=end_s))


def _least_width(table: Table, column: int) -> int:
    """Return how narrow a column of text may get: an id names a folder, and stays whole."""
    return min(ID_WIDTH, max((len(row[column]) for row in table.rows), default=0))


class _LeftColumn(ProgressColumn):
    """What is left of a bar's work."""

    def render(self, task: Task) -> Text:
        """Return the remaining time of a bar."""
        work: Work = task.fields["work"]
        return Text("" if task.finished else work.left(monotonic()))


def _columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeElapsedColumn(),
        _LeftColumn(),
        TextColumn("{task.fields[work].note}", markup=False),
    )


def _bar(bars: Progress, work: Work) -> Update:
    """Add a bar and return what updates it; it starts with the first update."""
    task = bars.add_task(work.title, total=work.total, start=False, work=work)

    def update(done: float, note: str) -> None:
        if not work.begun:
            bars.start_task(task)
        work.update(done, note, monotonic())
        bars.update(task, completed=done)

    return update
