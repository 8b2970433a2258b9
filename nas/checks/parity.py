"""Checks through the file itself: its predictions, its accuracy, and the kernels that really run it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import (
    Artifact,
    Executable,
    FusesSums,
    RoundsItsWay,
    Runtime,
    single_output,
)
from nas.checks.check import DisagreementError
from nas.checks.engine import integer_count
from supernet.data.pixels import resized
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.evaluate import simulated_outputs
from supernet.tasks.metric import main_metric
from supernet.tasks.task import Outputs, Task, called

# share of equal predictions that a file must reach: a code may round the other way on a tie
AGREEMENT = 0.995


def open_file(model: bytes, runtime: Runtime | None = None) -> Executable:
    """Return an ONNX file ready to run, with all that its weights need of the processor.

    Args:
        runtime: what runs it; this machine's where none is given.
    """
    return (runtime or host_runtime()).compile(Artifact(model, "onnx", exact_sums=True))


def takes_pixels(executable: Executable) -> bool:
    """Return whether a file reads uint8 pixels (batch, h, w, c), not a normalised image."""
    return executable.inputs[0].dtype == "uint8"


def file_outputs(model: bytes, examples: Any, task: Task, runtime: Runtime | None = None) -> Outputs:
    """Return (n, ...) what the ONNX file says of examples, in batches of the size it was made for.

    Args:
        runtime: see `open_file`.
    """
    executable = open_file(model, runtime)
    pixels = takes_pixels(executable)
    size = executable.inputs[0].shape[1 if pixels else -1]
    assert size is not None
    return np.asarray(single_output(executable, input_of(examples, task, size=size, pixels=pixels)))


def input_of(examples: Any, task: Task, *, size: int, pixels: bool) -> NDArray[Any]:
    """Return examples as a file takes them: pixels (n, size, size, c), or as networks of the task do."""
    if pixels:
        return resized(examples, size)
    inputs: NDArray[Any] = task.inputs(examples, size).contiguous().numpy()
    return inputs


def file_metric(model: bytes, examples: Any, task: Task, runtime: Runtime | None = None) -> float:
    """Return the main metric of the ONNX file.

    Args:
        runtime: see `open_file`.
    """
    return task.evaluate(file_outputs(model, examples, task, runtime), examples)[main_metric(task).name]


def asked(runtime: Runtime) -> float:
    """Return the share of equal predictions that a file must reach on a runtime."""
    return runtime.agreement if isinstance(runtime, RoundsItsWay) else AGREEMENT


@dataclass(frozen=True)
class Parity:
    """Whether a file does what was asked for.

    Attributes:
        agreement: share of examples on which file and simulation decide the same.
        images: how many were compared.
        integer_layers: layers that the policy puts on integer kernels.
        integer_kernels: integer kernels that the runtime really runs.
    """

    agreement: float
    images: int
    integer_layers: int
    integer_kernels: int


def check_parity(
    model: bytes, network: QuantizedGraph, images: Any, task: Task, runtime: Runtime | None = None
) -> Parity:
    """Compare the file with the simulation, and the kernels that run it with the policy.

    Args:
        runtime: see `open_file`.

    Raises:
        DisagreementError: they predict differently on more than 0.5 % of the images, or what a runtime
            allows that rounds its own way; or it runs a layer in another format than the policy says.
    """
    runtime = runtime or host_runtime()
    executable, expected = open_file(model, runtime), runtime.expected_kernels(network.workload)
    kernels = executable.kernels()
    for name, count in expected.items():
        if kernels.get(name, 0) != count:
            raise DisagreementError(
                f"{runtime.describe().engine} runs {kernels.get(name, 0)} {name} kernels where the policy "
                f"asks for {count}"
            )
    outputs = file_outputs(model, images, task, runtime)
    fused = executable.fused_sums() if isinstance(executable, FusesSums) else frozenset[str]()
    agreement = task.agreement(outputs, simulated_outputs(network, images, task, fused))
    least = asked(runtime)
    if agreement < least:
        raise DisagreementError(
            f"file and simulation agree on {agreement:.2%} of {len(images)} {called(task)}, below {least:.1%}"
        )
    return Parity(agreement, len(images), integer_count(expected, runtime), integer_count(kernels, runtime))
