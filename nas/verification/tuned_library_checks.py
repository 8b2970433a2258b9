"""What the library of a tuned network does, beside what its manifest says. Its machine code runs only where
that is allowed, and in a process of its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from hw_profiles.documents import MismatchError
from hw_profiles.errors import TrilobitError
from nas.checks.confined import ConfinedError
from nas.checks.engine import file_engine
from nas.checks.examples import SHARE, Array, agreement, made_up
from nas.export.library.library import LIBRARY, OtherProcessorError, stopped
from nas.export.seal import MODEL_FILE
from nas.export.tuned_manifest import TunedManifest
from nas.search.objectives import objective
from nas.search.units import show, show_latency
from nas.verification.finding import Finding
from nas.verification.library_checks import NOT_RUN
from nas.verification.places import HERE, OnBoard, Place
from nas.verification.tuned_quality import check_quality
from supernet.data.samples import Samples


def check_tuned_library(
    folder: Path,
    manifest: TunedManifest,
    *,
    allowed: bool,
    place: Place = HERE,
    samples: str = "",
    latency: bool = False,
) -> Iterator[Finding]:
    """Yield what the library of a tuned network answers, where there is one and the processor can run it.

    Args:
        allowed: whether its machine code may run.
        place: where.
        samples: source of what quality is measured on, on a board; empty leaves that out.
        latency: whether that is measured, on a board.

    Raises:
        TrilobitError: its manifest has no hash of it.
    """
    record, path = manifest.library, folder / LIBRARY
    if record is None:
        if LIBRARY in manifest.files:
            yield Finding("library", "the manifest says nothing of it", "there", False)
        return
    if LIBRARY not in manifest.files:
        raise TrilobitError(f"{path}: its manifest has no hash of it; not exported by `nas`")
    claimed = f"for {record.target}"
    if record.answers is None or not allowed:
        said = NOT_RUN if record.answers else "its manifest has no answers of it"
        yield Finding("library", claimed, said, None)
        return
    try:
        place.require(path)
        now = place.answers(path, record)
    except OtherProcessorError as error:
        yield Finding("library", claimed, str(error), None)
        return
    except (ConfinedError, MismatchError) as error:
        failure = stopped(path, error)
        holds = None if isinstance(failure, OtherProcessorError) else False
        yield Finding("library", claimed, str(failure), holds)
        return
    share, difference = agreement(now, record.answers)
    same = f"{share:.1%} the same, at most {difference:.2%} of an answer apart"
    yield Finding("answers of the library", f"to {record.answers.examples} examples", same, share >= SHARE)
    if isinstance(place, OnBoard):
        yield from _on_board(folder, manifest, place, samples, latency=latency)


def _on_board(
    folder: Path, manifest: TunedManifest, place: OnBoard, samples: str, *, latency: bool
) -> Iterator[Finding]:
    """Yield the metrics of a library that a board runs, and what it takes there."""
    path, answers = folder / LIBRARY, manifest.answers
    if samples:
        engine = file_engine(manifest.device)  # what the original says is asked here

        def outputs(some: Samples) -> Mapping[str, Array]:
            return place.outputs(path, some.inputs)

        yield from check_quality(folder / MODEL_FILE, manifest, engine, samples, outputs)
    if latency and (then := manifest.latency) is not None:
        example = made_up(answers.inputs, 0) if answers is not None else None
        now = place.timed(path, example)
        ratio = f" ({now.median_s / then.median_s:.2f} x)" if manifest.device.board is not None else ""
        yield Finding(
            "latency of the library",
            f"{show(objective('latency'), then.median_s)} on {manifest.device.name}, {manifest.device.cpu}",
            f"{show_latency(now.median_s, now.iqr_s, now.load)}{ratio}, on {place.name}",
            None,
        )
