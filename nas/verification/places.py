"""Where the library of an exported network runs when it is looked at again: in a process of its own on this
machine, or on a board.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import parse
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.measurement import Measurement, MeasurePlan, plan_on
from hw_profiles.runtimes.info import BoardInfo
from hw_profiles.runtimes.runtime import (
    Array,
    Arrays,
    Artifact,
    Executable,
    RejectedError,
    Runtime,
    single_output,
)
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.examples import ExampleAnswers, answers
from nas.checks.library_engine import LibraryEngine, library_engine
from nas.export.library.library import WAITING_S, LibraryExecutable, confined_logits, require_machine
from nas.export.library.tuned import TunedLibrary, answers_there
from nas.verification.common_checks import MOST_RUNS, TRIAL_S

ILLEGAL = ("SIGILL", "Illegal instruction")  # as agents say what ended a process


class Place(Protocol):
    """A place where libraries run. Whatever one does there, here it is an answer or a `ConfinedError`."""

    @property
    def name(self) -> str:
        """It, for people."""
        ...

    def require(self, path: Path) -> None:
        """Refuse a library for another kind of processor.

        Raises:
            OtherProcessorError: it is.
        """
        ...

    def logits(
        self, library: LibraryExecutable, examples: Array, limits: Limits
    ) -> tuple[float, NDArray[np.float32]]:
        """Return seconds per example, and (n, ..., classes) logits; see `confined_logits`."""
        ...

    def latency(self, library: LibraryExecutable, run_s: float) -> Measurement:
        """Return what an example takes."""
        ...

    def answers(self, path: Path, library: TunedLibrary) -> ExampleAnswers:
        """Return what the library of a tuned network answers to the made-up examples of its manifest."""
        ...


@dataclass(frozen=True)
class Here:
    """This machine: a process of its own."""

    @property
    def name(self) -> str:
        """Its processor."""
        return cpu_model()

    def require(self, path: Path) -> None:
        """See `Place`."""
        require_machine(path)

    def logits(
        self, library: LibraryExecutable, examples: Array, limits: Limits
    ) -> tuple[float, NDArray[np.float32]]:
        """See `Place`."""
        return confined_logits(library, examples, limits)

    def latency(self, library: LibraryExecutable, run_s: float) -> Measurement:
        """See `Place`."""
        limits = Limits(TRIAL_S + MOST_RUNS * max(run_s, 0.0))
        document, _ = confined("nas.export.library.library:library_time", library.request(), limits=limits)
        return parse(Measurement, document)

    def answers(self, path: Path, library: TunedLibrary) -> ExampleAnswers:
        """See `Place`."""
        assert library.answers is not None
        return answers_there(path, library, library.answers.inputs, library.answers.examples)


HERE = Here()


@dataclass(frozen=True, eq=False)
class OnBoard:
    """A board, whose agent runs each library in a process of its own.

    Attributes:
        engine: reached.
    """

    engine: LibraryEngine

    @cached_property
    def board(self) -> BoardInfo:
        """Which it is."""
        board = self.engine.board
        assert board is not None
        return board

    @property
    def runtime(self) -> Runtime:
        """What runs libraries there."""
        return self.engine.device.runtime

    @property
    def name(self) -> str:
        """Its address and its processor."""
        return f"{self.board.address}, {self.runtime.describe().cpu}"

    def require(self, path: Path) -> None:
        """See `Place`."""
        require_machine(path, self.board.machine, where=self.board.address)

    def opened(self, path: Path) -> Executable:
        """Return a library, opened there.

        Raises:
            ConfinedError: it does not run there.
            TrilobitError: the board does not answer.
        """
        with _confined():
            return self.runtime.compile(Artifact(path.read_bytes(), "library"))

    def outputs(self, path: Path, inputs: Arrays) -> dict[str, Array]:
        """Return what a library says of examples (n, ...) of each input, one at a time: (n, ...) by output.

        Raises:
            ConfinedError, TrilobitError: see `opened`.
        """
        executable, count = self.opened(path), len(next(iter(inputs.values())))
        with _confined():
            rows = [executable.run({name: array[i] for name, array in inputs.items()}) for i in range(count)]
        return {info.name: np.stack([row[info.name] for row in rows]) for info in executable.outputs}

    def logits(
        self, library: LibraryExecutable, examples: Array, limits: Limits
    ) -> tuple[float, NDArray[np.float32]]:
        """See `Place`; how long it may take is the agent's business."""
        executable, start = self.opened(library.path), time.perf_counter()
        with _confined():
            logits = single_output(executable, library.stored(examples))
        if logits.shape != (len(examples), *library.answer) or logits.dtype != np.float32:
            raise ConfinedError("its answer cannot be read")
        return (time.perf_counter() - start) / len(examples), logits

    def latency(self, library: LibraryExecutable, run_s: float) -> Measurement:
        """See `Place`."""
        return self.timed(library.path, {library.inputs[0].name: library.example})

    def timed(self, path: Path, example: Arrays | None = None) -> Measurement:
        """Return what a library takes."""
        plan = plan_on(MeasurePlan(waiting_s=WAITING_S, energy_s=0.0), self.runtime.clock)
        artifact = Artifact(path.read_bytes(), "library", example=example)
        [measured] = self.engine.device.transport.sample(self.runtime, [artifact], [None], plan)
        if measured.error is not None:
            raise ConfinedError(measured.error)
        return measured

    def answers(self, path: Path, library: TunedLibrary) -> ExampleAnswers:
        """See `Place`."""
        assert library.answers is not None
        executable = self.opened(path)
        with _confined():
            return answers(executable.run, library.answers.inputs, library.answers.examples)


@contextmanager
def _confined() -> Iterator[None]:
    """Say of a library that a board rejects what is said of one that a process here rejects."""
    try:
        yield
    except RejectedError as error:
        illegal = any(words in str(error) for words in ILLEGAL)
        raise ConfinedError(str(error), signal.SIGILL if illegal else None) from None


def place_of(device: str) -> Here | OnBoard | None:
    """Return where libraries run that are looked at on a device; None where it runs files.

    Raises:
        TrilobitError: see `nas.checks.library_engine.library_engine`.
    """
    engine = library_engine(device)
    if engine is None:
        return None
    return HERE if engine.board is None else OnBoard(engine)
