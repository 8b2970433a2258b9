"""The library of a tuned network beside its ONNX file: run in a process of its own, and described."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from string import Template
from typing import Any

from hw_profiles.documents import MismatchError, parse
from hw_profiles.runtimes.runtime import Array, Executable, TensorInfo
from hw_profiles.runtimes.tvm_cpu.self_contained import SelfContainedExecutable, Signature
from nas.checks.check import DisagreementError
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.examples import SHARE, ExampleAnswers, ExampleInput, agreement, answers
from nas.export.library.library import LIBRARY
from nas.export.library.target import ExportedLibrary

EXAMPLES = Path(__file__).parent / "examples"
C_EXAMPLE, PYTHON_EXAMPLE = "example.c", "example.py"
ANSWERING = Limits(300.0)


@dataclass(frozen=True)
class TunedLibrary:
    """What a manifest says of a tuned network's library.

    Attributes:
        target: processor that it is for.
        integer_only: whether it computes in integers from the first layer to the answer.
        reads, gives: what it takes and gives, in memory as the network's file has them.
        answers: to made-up inputs, from a process of its own; None where it takes no such.
    """

    target: str
    integer_only: bool
    reads: TensorInfo
    gives: TensorInfo
    answers: ExampleAnswers | None = None

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return Signature(self.reads, self.gives)


@dataclass(frozen=True)
class BuiltLibrary:
    """A library of a policy, as it was measured.

    Attributes:
        code: the file.
        target: processor that it is for.
        integer_only: see `TunedLibrary`.
        signature: what it reads and gives.
    """

    code: bytes
    target: str
    integer_only: bool
    signature: Signature


def export_tuned_library(
    library: BuiltLibrary,
    executable: Executable,
    inputs: Sequence[ExampleInput],
    examples: int,
    *,
    here: bool = True,
) -> ExportedLibrary:
    """Return the files of a library, and what a manifest says of it.

    Args:
        executable: it, opened where it runs.
        inputs, examples: what it is asked there, and, where that is here, in a process of its own.
        here: whether it runs on this machine: on a board it is in a process of its own already.

    Raises:
        DisagreementError: a process of its own cannot run it, or answers otherwise.
    """
    example_answers = None
    if examples and not here:
        example_answers = answers(executable.run, inputs, examples)
    elif examples:
        example_answers = _answered(library, inputs, examples)
        share, difference = agreement(example_answers, answers(executable.run, inputs, examples))
        if share < SHARE:
            raise DisagreementError(
                f"{1 - share:.0%} of the library's answers are others in a process of its own, by up to "
                f"{difference:.1%}"
            )
    reads, gives = library.signature
    record = TunedLibrary(library.target, library.integer_only, reads, gives, example_answers)
    files = {LIBRARY: library.code, **example_programs(library.signature)}
    return ExportedLibrary(files, asdict(record))


def _answered(library: BuiltLibrary, inputs: Sequence[ExampleInput], examples: int) -> ExampleAnswers:
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
        path = Path(name) / LIBRARY
        path.write_bytes(library.code)
        try:
            return answers_there(path, library, inputs, examples)
        except (ConfinedError, MismatchError) as error:
            raise DisagreementError(f"a process of its own cannot run the library: {error}") from None


def answers_there(
    path: Path, library: BuiltLibrary | TunedLibrary, inputs: Sequence[ExampleInput], examples: int
) -> ExampleAnswers:
    """Return what a library answers to made-up examples in a process of its own.

    Raises:
        ConfinedError, MismatchError: it gave none that can be read.
    """
    request = {
        "path": str(path.absolute()),
        "signature": [asdict(info) for info in library.signature],
        "inputs": [asdict(stated) for stated in inputs],
        "examples": examples,
    }
    document, _ = confined("nas.export.library.tuned:library_answers", request, limits=ANSWERING)
    return parse(ExampleAnswers, document)


def requested_library(request: Mapping[str, Any]) -> SelfContainedExecutable:
    """Return the library at `path` with its `signature`, in a process of its own."""
    reads, gives = (parse(TensorInfo, info) for info in request["signature"])
    return SelfContainedExecutable(Path(request["path"]), Signature(reads, gives))


def library_answers(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what a requested library answers to made-up examples: to be run confined."""
    executable = requested_library(request)
    inputs = [parse(ExampleInput, stated) for stated in request["inputs"]]
    return answers(executable.run, inputs, int(request["examples"])).to_json(), {}


def example_programs(signature: Signature) -> Mapping[str, bytes]:
    """Return a C and a Python program that load and run the library, by file name."""
    facts: dict[str, object] = {}
    for name, info in zip(("read", "given"), signature, strict=True):
        sizes = tuple(1 if size is None else size for size in info.shape)
        facts |= {name: " x ".join(map(str, sizes)), f"{name}_shape": sizes, f"{name}_count": prod(sizes)}
    return {
        name: Template((EXAMPLES / f"tuned_{name}.txt").read_text()).substitute(facts).encode()
        for name in (C_EXAMPLE, PYTHON_EXAMPLE)
    }
