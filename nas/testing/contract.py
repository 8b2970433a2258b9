"""A contract is a list of promises; checking a plug-in tries them all and names those that are broken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


class BrokenContractError(AssertionError):
    """A plug-in does not do what it promises; the text lists each broken promise, and how it was broken."""


def expect(condition: object, broken: str) -> None:
    """Raise unless a condition holds.

    Raises:
        AssertionError: says what was broken.
    """
    if not condition:
        raise AssertionError(broken)


def refuses(call: Callable[[], object], kind: type[Exception], words: str) -> None:
    """Raise unless a call is refused with an error of that kind which says `words`.

    Raises:
        AssertionError: it is not, or says something else.
    """
    try:
        call()
    except kind as error:
        expect(words in str(error), f"expected an error that says {words!r}, got {error}")
        return
    raise AssertionError(f"expected a {kind.__name__} that says {words!r}, got none")


@dataclass(frozen=True)
class Contract(Generic[S]):
    """What every plug-in of one kind promises.

    Attributes:
        kind: of plug-in, such as `searcher`.
        promises: functions that take the plug-in and raise where it breaks the promise that their docstring
            states.
    """

    kind: str
    promises: tuple[Callable[[S], None], ...]

    def __call__(self, plug_in: S) -> None:
        """Try every promise.

        Raises:
            BrokenContractError: some are broken; all of them are named.
        """
        broken = [problem for promise in self.promises if (problem := _problem(promise, plug_in))]
        if broken:
            lines = "\n".join(f"  - {problem}" for problem in broken)
            raise BrokenContractError(f"{len(broken)} of {len(self.promises)} promises of a {self.kind} are "
                f"broken:\n{lines}")  # fmt: skip


def _problem(promise: Callable[[S], None], plug_in: S) -> str:
    """Return how a promise is broken; empty where it holds."""
    try:
        promise(plug_in)
    except Exception as error:
        stated = " ".join((promise.__doc__ or promise.__name__).split())
        reason = " ".join(str(error).split())[:400]
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return f"{stated.rstrip('.')}: {kind}{reason}"
    return ""
