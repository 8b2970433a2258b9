"""Progress of long work: how far each kind of it is, when it will end, and that in words."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from hw_profiles.measure.host import load_average
from hw_profiles.measure.interleave import watching

LINE_S = 30.0  # between two lines where the output is no terminal
Update = Callable[[float, str], None]  # how much is done, and a note


@dataclass
class Work:
    """One kind of work.

    Attributes:
        title: what it is called.
        total: items to do.
        done: items done, the part of one that is under way counted.
        note: what else there is to say.
        end_s: when it ends at the latest, on the monotonic clock: a budget.
        begun: whether anything was said of it.
        first: when, on the monotonic clock, and with how much done it was first under way: what a start that
            resumes finds done tells nothing about time.
    """

    title: str
    total: int
    done: float = 0.0
    note: str = ""
    end_s: float = float("inf")
    begun: bool = False
    first: tuple[float, float] | None = None

    def update(self, done: float, note: str, now_s: float) -> None:
        """Update what is done now."""
        self.done, self.note, self.begun = done, note, True
        if self.first is None and done:
            self.first = (now_s, done)

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds left if the other items take as long as those so far; None if unknown."""
        if self.first is None or self.done <= self.first[1]:
            return None
        began_s, found_done = self.first
        left_s = (now_s - began_s) / (self.done - found_done) * max(0.0, self.total - self.done)
        return min(left_s, max(0.0, self.end_s - now_s))

    def left(self, now_s: float) -> str:
        """Return the time left in words: of a pace that is not known yet no more than its limit."""
        left_s = self.left_s(now_s)
        if left_s is not None:
            return f"about {duration(left_s)} left"
        return "" if math.isinf(self.end_s) else f"at most {duration(max(0.0, self.end_s - now_s))} left"

    def line(self, now_s: float) -> str:
        """Return where it stands, in words."""
        left, note = self.left(now_s), self.note
        return (
            f"{self.title}: {self.done:,.0f} of {self.total:,}"
            + (f", {left}" if left else "")
            + (f"; {note}" if note else "")
        )


def duration(seconds: float) -> str:
    """Return a time as people read it.

    >>> duration(7.6), duration(185), duration(7500)
    ('8 s', '3 min', '2 h 5 min')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def waiting_note() -> str:
    """Return what to say while only quiet is waited for."""
    load = load_average()
    return "waiting for a quiet machine" + ("" if load is None else f" (load {load:.0f})")


@contextmanager
def tell_of_waiting(say: Callable[[str], None]) -> Iterator[None]:
    """Say that quiet is waited for whenever a measurement within the block does."""
    with watching(lambda share, waits: say(waiting_note()) if waits else None):
        yield


@dataclass
class Lines:
    """Kinds of work that are reported line by line.

    Attributes:
        write: takes each line.
        last: the last line, which is not repeated.
    """

    write: Callable[[str], object]
    works: list[Work] = field(default_factory=list)
    last: str = ""

    def add(self, title: str, total: int, end_s: float = math.inf) -> Update:
        """Add a kind of work and return what updates it."""
        work = Work(title, total, end_s=end_s)
        self.works.append(work)
        return lambda done, note: work.update(done, note, monotonic())

    def say(self) -> None:
        """Print a line about what is under way."""
        under_way = [work for work in list(self.works) if work.begun and work.done < work.total]
        line = "; ".join(work.line(monotonic()) for work in under_way)
        if line and line != self.last:
            self.write(line)
            self.last = line

    @contextmanager
    def regularly(self) -> Iterator[None]:
        """Say it every `LINE_S` seconds meanwhile."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(LINE_S):
                self.say()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
