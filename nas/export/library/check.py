"""A network's library beside its ONNX file: built, run where this machine can, compared, described.

Needs TVM; `nas.export.library.target` says whether it is wanted, without.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.integer_only import has_wide_tensors
from hw_profiles.graph.layer import MATRIX
from hw_profiles.measure.host import cpu_model
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.runtimes.tvm_cpu.standalone import is_integer_only
from nas.checks.check import AnyInput, DisagreementError, TextInput, answers_of, made_up_inputs
from nas.checks.parity import file_outputs
from nas.export.library.library import LIBRARY, library_latency
from nas.export.library.own import board_database, own_logits
from nas.export.library.target import ExportedLibrary, library_target
from nas.export.library.to_tvm import Library, answer_of, build_library, examples, unit_numbers
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.evaluate import simulated_outputs
from supernet.tasks.task import Examples

EXACT = 4  # examples that are computed in plain numpy too
FLOAT_ERROR = 0.05  # of the largest logit: where fp32 meets integers a code may tip over


def export_library(
    run: Run, network: QuantizedGraph, model: bytes, reads: AnyInput
) -> ExportedLibrary | None:
    """Build the library of a network, None where none is wanted.

    Args:
        model: its ONNX file, which it is compared with.
        reads: what it reads; images are always normalised.

    Raises:
        TrilobitError: the target cannot run a layer, or there is no compiler for it.
        DisagreementError: this machine runs it, and it does not give what the arithmetic says.
    """
    target = library_target(run)
    if not target:
        return None
    library = _built(run, network, target)
    files = {
        LIBRARY: library.code,
        **examples(library.plan, reads.vocabulary if isinstance(reads, TextInput) else 0),
    }
    record: dict[str, Any] = {
        "target": library.target,
        "integer_only": library.integer_only,
        "own_formats": has_wide_tensors(network.workload),
    }
    if library.local:
        record |= _compared(library, network, model, run, reads)
    else:
        expected = _by_arithmetic(network, made_up_inputs(reads, EXACT), answer_of(library.plan))
        answers = answers_of(expected, exact=library.integer_only)
        record |= {"answers": answers.to_json()}
    return ExportedLibrary(files, record)


def _built(run: Run, network: QuantizedGraph, target: str) -> Library:
    """Return the library, of the kernels that the run's device was measured with."""
    if (board_folder := board_database(run)) is not None:  # what is tuned there is not tuned here
        return build_library(network, target=target, database=board_folder, tuned=False)
    database = run.config.device.settings.get("database")
    return build_library(network, target=target, database=Path(database) if database else None)


def _compared(
    library: Library, network: QuantizedGraph, model: bytes, run: Run, reads: AnyInput
) -> dict[str, Any]:
    """Measure test accuracy, agreement on search-validation with the ONNX file and with the simulation, which
    round ties otherwise, answers to made-up examples, and latency by itself.
    """
    data, size = run.task, network.workload.in_size
    with tempfile.TemporaryDirectory() as folder:
        executable = library.written(Path(folder))

        def logits(some: Examples) -> NDArray[np.float32]:
            return own_logits(executable, data.inputs(some, size).numpy())

        few = data.validation[:EXACT]
        _require_exact(network, data.inputs(few, size).numpy(), logits(few))
        outputs = logits(data.validation)
        agreement = data.agreement(outputs, file_outputs(model, data.validation, data))
        # that of 16 bits is plain numpy, of a few examples only, which were just compared bit by bit
        parity = None
        if not has_wide_tensors(network.workload):
            parity = data.agreement(outputs, simulated_outputs(network, data.validation, data))
        right = data.scores(logits(data.test), data.test)
        made_up = made_up_inputs(reads, reads.asked)
        # every bit of it is the same on any machine where there is no floating point inside
        answers = answers_of(own_logits(executable, made_up), exact=library.integer_only)
        latency = library_latency(executable)
    return {
        "test_accuracy": float(right.mean()),
        "agreement": agreement,
        "parity": parity,
        "answers": answers.to_json(),
        "latency": {"median_s": latency.median_s, "iqr_s": latency.iqr_s, "cpu": cpu_model()},
    }


def _by_arithmetic(
    network: QuantizedGraph, inputs: np.ndarray, answer: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return (n, *answer) logits of images (n, c, h, w), or texts (n, length), in plain numpy."""
    numbers = unit_numbers(network)
    stored = inputs.transpose(0, 2, 3, 1) if inputs.ndim > MATRIX else inputs
    logits = [run_network(network.workload, numbers, example).reshape(answer) for example in stored]
    return np.array(logits, np.float32)


def _require_exact(network: QuantizedGraph, inputs: np.ndarray, logits: np.ndarray) -> None:
    """Refuse logits (n, ..., classes) of examples that are not those of
    `hw_profiles.reference.integer_ops`: bit for bit in an integer-only network, else but for the order of
    summation.
    """
    expected = _by_arithmetic(network, inputs, logits.shape[1:])
    allowed = 0.0 if is_integer_only(network.workload) else FLOAT_ERROR * float(np.abs(expected).max())
    off = float(np.abs(logits - expected).max())
    if off > allowed:
        raise DisagreementError(
            f"the library is off by {off:.3g} from the arithmetic, allowed is {allowed:.3g}"
        )
