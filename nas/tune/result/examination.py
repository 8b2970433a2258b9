"""Files run once more in a process of its own before they are handed on: one that answers otherwise
there than here, or that cannot be loaded, is not exported.
"""

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hw_profiles.documents import MismatchError, parse
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime
from nas.checks.check import DisagreementError
from nas.checks.confined import GIB, ConfinedError, Limits, confined
from nas.checks.engine import FileEngine
from nas.checks.examples import (
    MOST_EXAMPLES,
    SHARE,
    ExampleAnswers,
    ExampleInput,
    agreement,
    answers,
    example_inputs,
)
from nas.checks.network_tasks import NetworkFacts
from nas.export.seal import MODEL_FILE
from nas.tune.setup.tuning import Tuning

ANSWERING_S = 2.0  # that answering the made-up examples may take
FEWEST_EXAMPLES = 2
LIMITS = Limits(wall_s=300.0, memory_bytes=32 * GIB)


@dataclass(frozen=True)
class MadeUp:
    """What a network is asked, to be asked again elsewhere.

    Attributes:
        inputs: what examples are made up of; none where they cannot be.
        examples: how many.
    """

    inputs: tuple[ExampleInput, ...]
    examples: int


def made_up_for(tuning: Tuning, runtime: Runtime) -> MadeUp:
    """Return examples that the original answers too, few where each takes long."""
    try:
        inputs = example_inputs(tuning.parts.calibration.inputs)
    except ValueError:
        return MadeUp((), 0)
    executable = runtime.compile(Artifact(tuning.original))
    start = time.perf_counter()
    try:
        answers(executable.run, inputs, 1)
    except Exception:  # whatever an engine refuses of numbers that mean nothing, in classes of its own
        return MadeUp((), 0)
    each_s = time.perf_counter() - start
    return MadeUp(inputs, max(FEWEST_EXAMPLES, min(MOST_EXAMPLES, int(ANSWERING_S / max(each_s, 1e-6)))))


def examined(content: bytes, executable: Executable, engine: FileEngine, made_up: MadeUp) -> NetworkFacts:
    """Return what a process of its own says of a file, which there must answer what it answers here.

    Args:
        executable: the file, opened here.

    Raises:
        DisagreementError: it cannot be loaded there, or answers otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
        path = Path(name) / MODEL_FILE
        path.write_bytes(content)
        request = {
            "path": str(path),
            "device": engine.request(),
            "inputs": [asdict(stated) for stated in made_up.inputs],
            "examples": made_up.examples,
        }
        try:
            document, _ = confined("nas.checks.network_tasks:examine_network", request, limits=LIMITS)
            facts = parse(NetworkFacts, document)
        except (ConfinedError, MismatchError) as error:
            raise DisagreementError(f"a process of its own cannot run it: {error}") from None
    if made_up.examples:
        _require_same(facts.answers, answers(executable.run, made_up.inputs, made_up.examples))
    return facts


def _require_same(confined_answers: ExampleAnswers | None, own_answers: ExampleAnswers) -> None:
    share, difference = (
        agreement(confined_answers, own_answers) if confined_answers is not None else (0.0, float("inf"))
    )
    if share < SHARE:
        raise DisagreementError(
            f"{1 - share:.0%} of its answers are others in a process of its own, by up to {difference:.1%}"
        )
