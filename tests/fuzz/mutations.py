"""Damaged files, made at random and again from a seed, and what a command may make of them: it works, or it
says in one line what is wrong and exits with 2. Never a traceback, never a hang.
"""

import contextlib
import copy
import io
import json
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np

from nas.cli.failures import in_one_line, is_expected
from nas.cli.main import main

LIMIT_S = 30.0
SHOWN = 10  # offenders in the message of a test that fails
# what stands in for a value: another type, the edges of its own, and what only hostile files hold
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, -1e308, 5e-324, 2**31, 2**63, -(2**63), 10**400),
    *("", "0", "nan", "../../x", "/etc/passwd", "[bold]", "<script>", "\x00", "\ud800", "٣", "a" * 10_000),
    *([], {}, [[]], [None], {"": {}}, [1, "1", [1]], {"schema": "run/1"}),
)
DEEP = 5_000  # levels, more than Python's own stack


@dataclass(frozen=True)
class Mutation:
    """One damaged file, and how it was made."""

    how: str
    data: bytes


@dataclass(frozen=True)
class Attempt:
    """What a command made of a damaged file.

    Attributes:
        code: its exit status; None where it raised, or did not end in time.
        said: what it wrote to standard error, or the exception.
    """

    how: str
    code: int | None
    said: str

    @property
    def is_sound(self) -> bool:
        """Whether it worked, or refused in one line."""
        complaints = [line for line in self.said.splitlines() if line.startswith("nas")]
        return "Traceback" not in self.said and (
            self.code == 0 or (self.code == 2 and len(complaints) == 1 and bool(self.said.strip()))
        )


def damaged_bytes(data: bytes, *, count: int, rng: np.random.Generator) -> Iterator[Mutation]:
    """Yield `count` files that differ from `data` by one bit, byte, block or cut."""
    for _ in range(count):
        how = str(rng.choice(list(_CHANGES)))
        start = int(rng.integers(len(data)))
        end = min(len(data), start + int(rng.choice([1, 4, 16, 256])))
        yield Mutation(f"{how} at {start}..{end}", _CHANGES[how](data, start, end, rng))


_CHANGES: dict[str, Callable[[bytes, int, int, np.random.Generator], bytes]] = {
    "flip a bit": lambda data, i, _, rng: (
        data[:i] + bytes([data[i] ^ 1 << int(rng.integers(8))]) + data[i + 1 :]
    ),
    "random bytes": lambda data, i, j, rng: data[:i] + rng.bytes(j - i) + data[j:],
    "zeros": lambda data, i, j, _: data[:i] + bytes(j - i) + data[j:],
    "ones": lambda data, i, j, _: data[:i] + b"\xff" * (j - i) + data[j:],
    "cut": lambda data, i, _, __: data[:i],
    "leave out": lambda data, i, j, _: data[:i] + data[j:],
    "repeat": lambda data, i, j, _: data[:j] + data[i:],
    "insert": lambda data, i, j, rng: data[:i] + rng.bytes(j - i) + data[i:],
}


def damaged_documents(
    document: Any, *, count: int, rng: np.random.Generator, dumped: Callable[[Any], str] = json.dumps
) -> Iterator[Mutation]:
    """Yield `count` documents of which one part is gone, renamed, repeated, of another type or absurdly deep.

    Args:
        dumped: writes a document as text, JSON unless told otherwise; what it cannot write is not counted.
    """
    places = list(_places(document))
    made = 0
    while made < count:
        changed = copy.deepcopy(document)
        path = places[int(rng.integers(len(places)))]
        how = _change(changed, path, rng)
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            yield Mutation(f"{'.'.join(map(str, path))}: {how}", dumped(changed).encode(errors="replace"))
            made += 1


def deep_document(schema: str) -> bytes:
    """Return JSON of `DEEP` lists in each other, under a schema."""
    return f'{{"schema": "{schema}", "x": {"[" * DEEP}{"]" * DEEP}}}'.encode()


def _places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all parts of a document; of a long list only its first items."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(part, dict):
        items = part.items()
    elif isinstance(part, list):
        items = list(enumerate(part))[:3]
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _change(document: Any, path: Sequence[Any], rng: np.random.Generator) -> str:
    """Change the part at `path` in place; return how."""
    *above, key = path
    parent = document
    for step in above:
        parent = parent[step]
    kind = int(rng.integers(8))
    if kind == 0:
        del parent[key]
        return "gone"
    if kind == 1 and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
        return "renamed"
    if kind == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
        return "repeated"
    if kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = -parent[key] if rng.integers(2) else parent[key] * 10**6
        return f"now {parent[key]}"
    value = VALUES[int(rng.integers(len(VALUES)))]
    parent[key] = copy.deepcopy(value)
    return f"now {str(value)[:40]!r}"


def attempt(how: str, command: Sequence[str], *, limit_s: float = LIMIT_S) -> Attempt:
    """Run `nas` with these words; return what came of it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), _alarm(limit_s):
        try:
            code: int | None = main(list(command))
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else None
        except BaseException as error:  # what this is about
            return Attempt(how, None, f"{type(error).__name__}: {str(error)[:200]}")
    return Attempt(how, code, said.getvalue())


def try_out(how: str, use: Callable[[], object], *, limit_s: float = LIMIT_S) -> Attempt:
    """Use a damaged file in this process, faster than by a command; return what came of it.

    What a command tells in one line counts as that line.
    """
    try:
        with warnings.catch_warnings(action="ignore"), _alarm(limit_s):
            use()
    except BaseException as error:  # what this is about
        if not is_expected(error) or isinstance(error, TimeoutError):
            return Attempt(how, None, f"{type(error).__name__}: {str(error)[:200]}")
        line = in_one_line(error)
        return Attempt(how, 2 if "\n" not in line else None, f"nas: {line}")
    return Attempt(how, 0, "")


@contextlib.contextmanager
def _alarm(limit_s: float) -> Iterator[None]:
    start = time.monotonic()

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"no end after {time.monotonic() - start:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def require_sound(attempts: Iterable[Attempt]) -> dict[str, int]:
    """Return how many of the attempts worked and were refused; fail on any that did neither."""
    counts = {"worked": 0, "refused": 0}
    offenders = []
    for outcome in attempts:
        counts["worked" if outcome.code == 0 else "refused"] += 1
        if not outcome.is_sound:
            offenders.append(f"{outcome.how}: exit {outcome.code}: {outcome.said.strip()[-300:]}")
    shown = "\n".join(offenders[:SHOWN])
    assert not offenders, f"{len(offenders)} of {sum(counts.values())}:\n{shown}"
    return counts
