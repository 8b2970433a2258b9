"""What the library of a tuned network does, beside what its manifest says. Its machine code runs only where
that is allowed, and in a process of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from hw_profiles.documents import MismatchError
from hw_profiles.errors import TrilobitError
from nas.checks.confined import ConfinedError
from nas.checks.examples import SHARE, agreement
from nas.export.library.library import LIBRARY, OtherProcessorError, require_machine, stopped
from nas.export.library.tuned import answers_there
from nas.export.tuned_manifest import TunedManifest
from nas.verification.finding import Finding
from nas.verification.library_checks import NOT_RUN


def check_tuned_library(folder: Path, manifest: TunedManifest, *, allowed: bool) -> Iterator[Finding]:
    """Yield what the library of a tuned network answers, where there is one and this processor can run it.

    Args:
        allowed: whether its machine code may run.

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
        require_machine(path)
        now = answers_there(path, record, record.answers.inputs, record.answers.examples)
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
