"""One kind of evaluation: results in the order in which they are asked for, whatever order they come in."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

from nas.evaluation.store import EvaluationStore, Result
from supernet.space.space import Candidate

Evaluate = Callable[[Sequence[Candidate]], Iterator[tuple[Candidate, Result]]]
Found = Callable[[int, Result], None]  # how many of those that were asked for are there, and the last of them


@dataclass(frozen=True)
class Study:
    """One kind of evaluation.

    Attributes:
        name: what its trials are called in the storage.
        open_store: where its results are.
        evaluate: candidates, each once -> their results, one after the other, in any order.
        group: how many candidates are evaluated at a time; None for all that are asked for.
        require: refuses a store before anything is evaluated for it.
    """

    name: str
    open_store: Callable[[], EvaluationStore]
    evaluate: Evaluate
    group: int | None
    require: Callable[[EvaluationStore], None] = lambda store: None

    @cached_property
    def store(self) -> EvaluationStore:
        """Of what is evaluated."""
        return self.open_store()

    @cached_property
    def _required(self) -> None:
        self.require(self.store)

    def results(
        self, candidates: Sequence[Candidate], on_found: Found = lambda done, result: None
    ) -> Iterator[Result]:
        """Yield the candidates' results in order; known ones cost nothing. Each is kept as soon as it is
        there.

        Args:
            on_found: told of each result when it is there, which may be long before its turn.

        Raises:
            TrilobitError: an evaluation, or the storage, fails; what was evaluated until then is kept.
        """
        group = self.group or max(1, len(candidates))
        for start in range(0, len(candidates), group):
            yield from self._evaluated(candidates[start : start + group], start, on_found)

    def _evaluated(self, candidates: Sequence[Candidate], done: int, on_found: Found) -> Iterator[Result]:
        waiting, times = deque(candidates), Counter(candidates)
        for candidate, count in times.items():
            if (known := self.store.get(candidate)) is not None:
                on_found(done := done + count, known)
        yield from self._known(waiting)
        missing = [c for c in dict.fromkeys(waiting) if self.store.get(c) is None]
        if missing:
            _ = self._required
        with closing(self.evaluate(missing)) as evaluated:  # type: ignore[type-var]
            for candidate, result in evaluated if missing else ():
                self.store.add(candidate, *result)
                on_found(done := done + times[candidate], result)
                yield from self._known(waiting)
        assert not waiting, "an evaluation was left out"

    def _known(self, waiting: deque[Candidate]) -> Iterator[Result]:
        """Yield the results of the first ones that wait, as far as they are known."""
        while waiting and (result := self.store.get(waiting[0])) is not None:
            waiting.popleft()
            yield result
