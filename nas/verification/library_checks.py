"""What an exported network's library does, beside what its manifest says. Its machine code runs only where
that was allowed, and in a process of its own.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hw_profiles.documents import MismatchError
from hw_profiles.errors import TrilobitError
from nas.checks.check import TextInput, agreement, digest, made_up_inputs
from nas.checks.confined import ConfinedError, Limits
from nas.checks.parity import AGREEMENT
from nas.export.library.library import (
    LIBRARY,
    CompiledFile,
    LibraryExecutable,
    OtherProcessorError,
    stopped,
)
from nas.export.manifest import LibraryRecord, Manifest
from nas.export.seal import MODEL_FILE
from nas.run.reporting import Reporter
from nas.search.objectives import objective
from nas.search.units import show, show_latency
from nas.verification.common_checks import SLACK, TRIAL_S
from nas.verification.file_checks import chunks, require_classes
from nas.verification.finding import Finding, moved
from nas.verification.places import HERE, OnBoard, Place
from supernet.tasks.task import Task

NOT_RUN = "not run: its machine code runs, with your rights, only with --run-library"


def check_library(
    folder: Path,
    manifest: Manifest,
    data: Task | None,
    *,
    latency: bool,
    allowed: bool,
    place: Place = HERE,
) -> Iterator[Finding]:
    """Yield what the library of a network does, where there is one and the processor can run it.

    Args:
        data: whose test part accuracy is measured on; None leaves that out.
        allowed: whether its machine code may run.
        place: where.

    Raises:
        TrilobitError: its manifest has no hash of it, or the data has other classes.
    """
    record, path = manifest.library, folder / LIBRARY
    if record is None:
        if LIBRARY in manifest.files:
            yield Finding("library", "the manifest says nothing of it", "there", False)
        return
    if LIBRARY not in manifest.files:
        raise TrilobitError(f"{path}: its manifest has no hash of it; not exported by `nas`")
    if record.answers is None:
        yield Finding("library", f"for {record.target}", "its manifest has no answers of it", False)
        return
    if not allowed:
        yield Finding("library", f"for {record.target}", NOT_RUN, None)
        return
    try:
        place.require(path)
        shape = reads.file_shape if isinstance(reads := manifest.input, TextInput) else reads.shape
        library = LibraryExecutable(path, shape, reads.answer_shape(1, len(manifest.classes))[1:])
        yield from _of_library(library, record, manifest, data, place, latency=latency)
    except OtherProcessorError as error:
        yield Finding("library", f"for {record.target}", str(error), None)


@contextmanager
def compiled_for(
    folder: Path, manifest: Manifest, place: OnBoard, reporter: Reporter
) -> Iterator[tuple[LibraryExecutable, LibraryRecord]]:
    """Compile the ONNX file of a network without a library for a board; yields the library, which is there
    within the block, and what must hold of it. Kernels are tuned first, as far as they were not: minutes.

    Raises:
        TrilobitError: something in the file has no kernel, as what is quantized already; says what.
    """
    from nas.export.library.of_file import compile_file  # the compiler: only where it is needed

    model, reads = folder / MODEL_FILE, manifest.input
    try:
        built = compile_file(model, place.runtime, reporter=reporter)
    except TrilobitError as error:
        raise TrilobitError(
            f"{folder}: no {LIBRARY}, which is what {place.name} runs (`nas export --library TARGET` writes "
            f"one), and its file cannot be compiled here: {error}"
        ) from None
    record = LibraryRecord(built.target, built.integer_only, manifest.answers, manifest.accuracy.test)
    answer = reads.answer_shape(1, len(manifest.classes))[1:]
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
        path = Path(name) / LIBRARY
        path.write_bytes(built.code)
        yield CompiledFile(path, reads.file_shape, answer, built.signature.reads.name), record


def check_compiled(
    compiled: tuple[LibraryExecutable, LibraryRecord],
    manifest: Manifest,
    data: Task | None,
    *,
    latency: bool,
    place: OnBoard,
) -> Iterator[Finding]:
    """Yield what a network does on a board as the library that was compiled of it.

    Args:
        compiled: see `compiled_for`.
        data: see `check_library`.
    """
    library, record = compiled
    yield from _of_library(library, record, manifest, data, place, latency=latency)


def _of_library(
    library: LibraryExecutable,
    record: LibraryRecord,
    manifest: Manifest,
    data: Task | None,
    place: Place,
    *,
    latency: bool,
) -> Iterator[Finding]:
    answers, reads = record.answers, manifest.input
    assert answers is not None
    try:
        run_s, logits = place.logits(library, made_up_inputs(reads, answers.images), Limits(TRIAL_S))
        share, difference = agreement(logits, answers)
        now = f"{share:.1%} the same, logits within {difference:.2g}"
        what, then = "answers of the library", f"{answers.images} answers"
        if answers.sha256 is None:
            yield Finding(what, then, now, share >= AGREEMENT)
        else:
            exact = digest(logits) == answers.sha256
            yield Finding(what, f"{then}, every bit", "every bit the same" if exact else now, exact)
        if data is not None:
            require_classes(manifest, data)
            yield _accuracy(library, record, manifest, data, place, run_s)
        if latency:
            yield _latency(library, record, place, run_s)
    except (ConfinedError, MismatchError, KeyError) as error:
        failure = stopped(library.path, error)
        if isinstance(failure, OtherProcessorError):
            raise failure from None
        yield Finding("library", f"for {record.target}", str(failure), False)


def _accuracy(
    library: LibraryExecutable,
    record: LibraryRecord,
    manifest: Manifest,
    data: Task,
    place: Place,
    run_s: float,
) -> Finding:
    right = 0.0
    for some in chunks(data.test, manifest.input, len(manifest.classes)):
        inputs = data.inputs(some, manifest.input.size).contiguous().numpy()
        limits = Limits(TRIAL_S + SLACK * max(run_s, 0.0) * len(some))
        _, logits = place.logits(library, inputs, limits)
        right += float(data.scores(logits, some).sum())
    now, n = right / len(data.test), len(data.test)
    return moved("accuracy of the library", record.test_accuracy, now, examples=n, of=manifest.accuracy.n)


def _latency(library: LibraryExecutable, record: LibraryRecord, place: Place, run_s: float) -> Finding:
    now, then = place.latency(library, run_s), record.latency
    seconds = partial(show, objective("latency"))
    measured = f"{show_latency(now.median_s, now.iqr_s, now.load)}, on {place.name}"
    if then is None:
        return Finding("latency of the library", "not measured", measured, None)
    measured += f" ({now.median_s / then.median_s:.2f} x)"
    return Finding("latency of the library", f"{seconds(then.median_s)} on {then.cpu}", measured, None)
