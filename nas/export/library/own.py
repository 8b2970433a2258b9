"""Libraries that this run built itself, run on this machine or on its boards: what its networks say on a
device that runs libraries. Needs TVM.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import Array, Artifact, TensorInfo, single_output
from hw_profiles.runtimes.tvm_cpu.elsewhere import LibrariesThere
from hw_profiles.runtimes.tvm_cpu.self_contained import Signature
from hw_profiles.runtimes.tvm_cpu.standalone import ChannelsFirst
from nas.checks.confined import Limits
from nas.export.library.library import LibraryExecutable, confined_logits
from nas.export.library.to_tvm import Library, build_library
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.task import Outputs, Task

CALL_BYTES = 2**28  # of examples that one process is given
START_S, IMAGE_S = 60.0, 1.0  # what a process may take to start, and for each example


def own_library(run: Run, network: QuantizedGraph, target: str) -> Library:
    """Return a network as a library for the run's device; what was not tuned yet is not tuned for this.

    Raises:
        TrilobitError: a layer has no kernel, there is no C compiler, or it gives no vector per image.
    """
    database = run.config.device.settings.get("database")
    folder = Path(database) if database else None
    library = build_library(network, target=target, database=folder, tuned=False)
    if not library.local:
        raise TrilobitError(f"this machine does not run code for {library.target}")
    shape = library.plan.output.shape
    if max(shape) != int(np.prod(shape)):
        raise TrilobitError(f"its last layer gives {shape}, no vector for each image")
    return library


def library_outputs(library: Library, network: QuantizedGraph, examples: Any, task: Task) -> Outputs:
    """Return (n, ..., classes) what a library says of examples, in a process of its own.

    Raises:
        ConfinedError: it gave no answer.
    """
    inputs: Array = task.inputs(examples, network.workload.in_size).contiguous().numpy()
    with tempfile.TemporaryDirectory(prefix="trilobit-") as folder:
        return own_logits(library.written(Path(folder)), inputs)


def board_library(run: Run, network: QuantizedGraph, target: str) -> Library:
    """Return a network as a library for the run's boards, which says what it reads and gives; what was not
    tuned yet is not tuned for this.

    Raises:
        TrilobitError: a layer has no kernel, or there is no C compiler.
    """
    answers = int(np.prod([int(size) for size in network.workload.layers[-1].outputs[0].shape[1:]]))
    signature = Signature(
        TensorInfo("image", (None, *network.workload.in_shape), "float32"),
        TensorInfo("output", (None, answers), "float32"),
    )
    database, first = board_database(run), ChannelsFirst(image=True)
    return build_library(
        network, target=target, database=database, tuned=False, first=first, signature=signature
    )


def board_database(run: Run) -> Path | None:
    """Return the folder of what was tuned on the run's boards; None where it has none."""
    runtime = None if run.recorded else run.device.runtime
    return runtime.here.local.database.folder if isinstance(runtime, LibrariesThere) else None


def board_outputs(run: Run, library: Library, network: QuantizedGraph, examples: Any) -> Outputs:
    """Return (n, classes) what a library says of examples on the run's board.

    Raises:
        TrilobitError: no board answers.
    """
    runtime = run.device.runtime
    assert runtime is not None
    images: NDArray[np.float32] = run.task.inputs(examples, network.workload.in_size).contiguous().numpy()
    return single_output(runtime.compile(Artifact(library.code, "library")), images)


def own_logits(library: LibraryExecutable, inputs: Array) -> NDArray[np.float32]:
    """Return (n, ..., classes) logits of normalised images (n, c, h, w), or of texts (n, length): machine
    code, so a process of its own.
    """
    size = max(1, CALL_BYTES // inputs[0].nbytes)
    parts = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    limits = [Limits(START_S + IMAGE_S * len(part)) for part in parts]
    logits = [confined_logits(library, part, most)[1] for part, most in zip(parts, limits, strict=True)]
    return np.concatenate(logits)
