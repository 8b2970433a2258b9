"""A network as one shared library for a processor, built from the kernels that its profile was measured with.

Integer layers are computed in integers throughout: dyadic requantization (HAWQ-V3, arXiv:2011.10680), 4-bit
weights two to a byte. The arithmetic is that of `hw_profiles.reference.integer_ops`, bit for bit; it rounds
half up where ONNX Runtime rounds half to even, so a code may differ by one at a tie between the two.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from string import Template

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.cache import IDS
from hw_profiles.reference.integer_ops import UnitNumbers
from hw_profiles.runtimes.runtime import TensorInfo
from hw_profiles.runtimes.tvm_cpu.dot import exact_where_needed
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan, pack_parameters, plan_network
from hw_profiles.runtimes.tvm_cpu.runtime import Trials, compiled_units, default_database
from hw_profiles.runtimes.tvm_cpu.self_contained import Signature, described
from hw_profiles.runtimes.tvm_cpu.standalone import (
    ChannelsFirst,
    float_operations,
    is_integer_only,
    link_standalone,
)
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.tuning import Database, run_locally
from hw_profiles.runtimes.tvm_cpu.unit import CompiledUnit
from nas.export.library.library import IMAGES, LIBRARY, LOGITS, LibraryExecutable
from nas.export.library.limits import why_not
from supernet.data.tokens import PADDING
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.unit_numbers import unit_numbers as unit_numbers

C_EXAMPLE, PYTHON_EXAMPLE = "example.c", "example.py"
_EXAMPLES = Path(__file__).parent / "examples"


@dataclass(frozen=True, eq=False)
class Library:
    """A network for one processor.

    Attributes:
        code: the file.
        target: as `parse_target` reads it.
        local: whether this machine runs it.
        integer_only: whether no layer between the image, or ids, and the logits has a floating-point value in
            it.
        plan: what it reads and gives.
    """

    code: bytes
    target: str
    local: bool
    integer_only: bool
    plan: NetworkPlan

    def written(self, folder: Path) -> LibraryExecutable:
        """Write the file, and return it as what runs."""
        path = folder / LIBRARY
        path.write_bytes(self.code)
        return LibraryExecutable(path, self.plan.image.shape, answer_of(self.plan))


def build_library(
    network: QuantizedGraph,
    *,
    target: str = "host",
    database: Path | None = None,
    tuned: bool = True,
    trials: Trials | None = None,
    first: ChannelsFirst = ChannelsFirst(),  # noqa: B008  it is frozen
    signature: Signature | None = None,
) -> Library:
    """Compile, or take what is tuned already, and link.

    Args:
        database: folder of tuned units.
        tuned: whether those of this machine that it lacks are tuned now; else, and for another target, the
            first schedule is taken, which computes the same.
        trials: where they are tuned; None tunes on this machine, what that runs.
        first: which ends have their channels first.
        signature: what the library says that it reads and gives; None takes what its plan says.

    Raises:
        TrilobitError: a layer has no kernel (which, and why), or there is no C compiler for the target.
        RuntimeError: a network that is to be computed in integers is not.
    """
    parsed = parse_target(target)
    numbers = unit_numbers(network)
    work = exact_where_needed(network.workload, numbers, parsed)
    if why := why_not(work):
        raise TrilobitError(f"{why}; or leave the library out, or search with --device tvm")
    known = Database(database or default_database(), parsed)
    local_runner = run_locally if parsed.local and tuned else None
    try_out = trials if trials is not None and tuned else lambda use: use(local_runner)
    units = try_out(lambda runner: compiled_units([work], known, runner))
    if broken := [f"{key}: {unit}" for key, unit in units.items() if isinstance(unit, str)]:
        raise TrilobitError(broken[0])
    plan = plan_network(work, {k: u for k, u in units.items() if isinstance(u, CompiledUnit)})
    integer_only = is_integer_only(work)
    if integer_only and (floating := float_operations(plan, parsed)):
        raise RuntimeError(f"layers that are to be integer-only compute in floating point: {floating}")
    layers = [layer.key() for layer in work.layers]
    code = _linked(plan, numbers, parsed, first, described(signature or signature_of(plan), layers))
    return Library(code, parsed.name, parsed.local, integer_only, plan)


def _linked(
    plan: NetworkPlan,
    numbers: Mapping[str, UnitNumbers],
    target: TvmTarget,
    first: ChannelsFirst,
    signature: str,
) -> bytes:
    parameters = pack_parameters(plan, numbers, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LIBRARY
        link_standalone(plan, parameters, target, path, first, signature)
        return path.read_bytes()


def signature_of(plan: NetworkPlan) -> Signature:
    """Return what a library reads and gives whose ends are as its kernels have them."""
    reads = IDS if len(plan.image.shape) == 1 else IMAGES
    return Signature(
        TensorInfo(reads, (None, *plan.image.shape), plan.image.dtype),
        TensorInfo(LOGITS, (None, *answer_of(plan)), plan.output.dtype),
    )


def answer_of(plan: NetworkPlan) -> tuple[int, ...]:
    """Return the shape of what a library gives for one example: (classes,), or (length, classes)."""
    if len(plan.image.shape) == 1:
        return tuple(int(size) for size in plan.workload.layers[-1].outputs[0].shape[1:])
    return (prod(plan.output.shape),)


def examples(plan: NetworkPlan, vocabulary: int = 0) -> Mapping[str, bytes]:
    """Return a C and a Python program that load and run the library, by file name.

    Args:
        vocabulary: where it reads text: tokens besides bytes mark what is behind the end of one.
    """
    *rows, classes = answer_of(plan)
    numbers = {"classes": classes}
    if len(plan.image.shape) == 1:
        kind, (length,) = "text_", plan.image.shape
        padding = PADDING if vocabulary > PADDING else -1
        numbers |= {"length": length, "rows": prod(rows), "padding": padding}
    else:
        kind, (h, w, c) = "", plan.image.shape
        numbers |= {"h": h, "w": w, "c": c}
    return {
        name: Template((_EXAMPLES / f"{kind}{name}.txt").read_text()).substitute(numbers).encode()
        for name in (C_EXAMPLE, PYTHON_EXAMPLE)
    }
