"""Times files of several runtimes in the same turns, so that all see the same disturbances. Runs in a process
of its own (`nas.checks.confined`); imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import parse
from hw_profiles.errors import one_line
from hw_profiles.measure.measurement import Measurement, MeasurePlan, plan_on
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.file_runtime import timed_inputs
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Arrays, Artifact, Executable, Runtime
from nas.export.library.tuned import requested_library
from nas.serving.given import example_for, fits, opened_by

TASK = "nas.serving.side_by_side:time_side_by_side"
Answer = tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Timing:
    """What a file took, and what it answered.

    Attributes:
        measured: its samples, of the same passes for all files; or why it does not run.
        difference: largest difference of its answers to one example from those of the first file of its
            group, as a share of the largest of these; None where the two give other outputs.
    """

    measured: Measurement
    difference: float | None = None


@dataclass(frozen=True, eq=False)
class OpenedBy(Artifact):
    """A file that knows what runs it.

    Attributes:
        file: as it was requested.
    """

    file: Mapping[str, Any] = field(default_factory=dict)


class _EachItsOwn:
    """A runtime of which only `compile` is used: every file is opened by its own."""

    def compile(self, artifact: Artifact) -> Executable:
        """Open a file."""
        assert isinstance(artifact, OpenedBy)
        return _open(artifact.file)


def time_side_by_side(request: Mapping[str, Any]) -> Answer:
    """Return the `Timing` of each of `files` by `plan`, on the arrays of the file `inputs`, or where there is
    none on random numbers. A file has a `path`, and a `device` that opens it or the `signature` of a library;
    answers are compared within a `group`. What reads other sizes than the first gets random numbers.
    The clock is that of the calling thread where it does all the work of all files, else the wall's.

    Raises:
        ValueError: the first file does not run, leaves sizes open, or needs an input that is not there.
    """
    files: Sequence[Mapping[str, Any]] = request["files"]
    opened = [_tried(file) for file in files]
    if isinstance(opened[0], str):
        raise ValueError(opened[0])
    example = _example(opened[0], request["inputs"])
    alone = all(map(_works_alone, files))
    plan = plan_on(parse(MeasurePlan, request["plan"]), "thread" if alone else "wall")
    pairs = [(file, each) for file, each in zip(files, opened, strict=True) if not isinstance(each, str)]
    artifacts = [OpenedBy(b"", example=_fed(each, example), file=file) for file, each in pairs]
    device = choose(files[0]["device"]["name"], files[0]["device"]["options"]).open()
    assert isinstance(device, MeasuredDevice)  # it is on the machine of all of them
    turns = ["turns"] * len(pairs)
    sampled = device.transport.sample(cast(Runtime, _EachItsOwn()), artifacts, turns, plan)
    answers = [_answers(each, _fed(each, example)) for _, each in pairs]
    firsts = dict[str, Sequence[NDArray[Any]]]()  # of each group, what all others of it are compared with
    for (file, _), answer in zip(pairs, answers, strict=True):
        firsts.setdefault(file.get("group", ""), answer)
    timed = [
        Timing(measured, _difference(answer, firsts[file.get("group", "")]))
        for (file, _), measured, answer in zip(pairs, sampled, answers, strict=True)
    ]
    rest = iter(timed)
    timings = [Timing(Measurement(error=each)) if isinstance(each, str) else next(rest) for each in opened]
    return [asdict(timing) for timing in timings], {}


def _tried(file: Mapping[str, Any]) -> Executable | str:
    """Return a file, ready to run, or why it is not."""
    try:
        return _open(file)
    except ValueError as error:  # said by `opened_by`, in words for people
        return str(error)
    except Exception as error:  # whatever its engine rejects
        return one_line(error)


def _runtime(file: Mapping[str, Any]) -> Runtime:
    runtime = choose(file["device"]["name"], file["device"]["options"]).open().runtime
    assert runtime is not None
    return runtime


def _works_alone(file: Mapping[str, Any]) -> bool:
    """Return whether the thread that calls does all the work, whose CPU time then counts."""
    return "signature" in file or _runtime(file).clock == "thread"


def _open(file: Mapping[str, Any]) -> Executable:
    if "signature" in file:
        return requested_library(file)
    runtime = _runtime(file)
    return opened_by(runtime, Path(file["path"]).read_bytes())


def _example(first: Executable, path: str | None) -> dict[str, NDArray[Any]]:
    """Return what all files read, as the first calls its inputs.

    Raises:
        ValueError: it leaves sizes open besides the number of examples, or the file lacks an input.
    """
    if path is not None:
        return timed_inputs(first.inputs, 1, example_for(first, Path(path)))
    if unbound := [info.name for info in first.inputs if None in info.shape[1:]]:
        raise ValueError(
            f"it leaves sizes of {', '.join(unbound)} open; give what it reads with --inputs FILE.npz"
        )
    return timed_inputs(first.inputs, 1)


def _fed(executable: Executable, example: Arrays) -> dict[str, NDArray[Any]]:
    """Return the example by the names that a file has for its inputs: a library has its own; random numbers
    where it reads other sizes.
    """
    names = [info.name for info in executable.inputs]
    named = set(names) <= set(example)
    fed = (
        {name: example[name] for name in names} if named else dict(zip(names, example.values(), strict=True))
    )
    return fed if all(map(fits, executable.inputs, fed.values())) else timed_inputs(executable.inputs, 1)


def _answers(executable: Executable, inputs: Arrays) -> Sequence[NDArray[Any]]:
    """Return what a file gives; nothing where it does not run, which the row of its time says."""
    try:
        return [np.asarray(array) for array in executable.run(inputs).values()]
    except Exception:  # whatever its engine rejects
        return ()


def _difference(answers: Sequence[NDArray[Any]], first: Sequence[NDArray[Any]]) -> float | None:
    pairs = list(zip(answers, first, strict=False))
    if not answers or len(answers) != len(first) or any(a.size != b.size for a, b in pairs):
        return None
    off = 0.0
    for answer, reference in pairs:
        largest = float(np.abs(reference).max(initial=0.0)) or 1.0
        apart = np.abs(answer.astype(np.float64).ravel() - reference.astype(np.float64).ravel())
        off = max(off, float(apart.max(initial=0.0)) / largest)
    return off


def timings_of(document: Any) -> tuple[Timing, ...]:
    """Return what `time_side_by_side` gave.

    Raises:
        MismatchError: it is none.
    """
    return parse(tuple[Timing, ...], document)
