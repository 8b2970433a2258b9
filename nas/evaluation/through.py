"""What a network says of examples on the run's device: through what runs there where this machine can run it
too, else through its ONNX file.
"""

from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import LostError
from nas.checks.parity import file_outputs
from nas.export.library.target import own_target
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.task import Outputs

LIBRARY = "library"  # of what ran, how it begins


@dataclass(frozen=True, eq=False)
class Answered:
    """What a network said.

    Attributes:
        through: what ran it, in one line; where that is not what the device runs, why.
    """

    outputs: Outputs
    through: str


def device_outputs(run: Run, network: QuantizedGraph, model: bytes, examples: Any) -> Answered:
    """Return what a network says of examples on the run's device.

    Args:
        model: its ONNX file.
    """
    target, why = own_target(run), ""
    if target:
        from nas.export.library.own import (  # TVM: only where it is the device
            board_library,
            board_outputs,
            library_outputs,
            own_library,
        )

        board = run.device.describe().board
        try:
            library = (board_library if board else own_library)(run, network, target)
        except TrilobitError as error:
            why = f", since there is no library of it: {error}"
        else:
            through = f"{LIBRARY} for {library.target}"
            if board is None:
                return Answered(library_outputs(library, network, examples, run.task), through)
            board_answers = board_outputs(run, library, network, examples)
            return Answered(board_answers, f"{through} on {board.address}")
    elif tracker := run.config.device.settings.get("tracker"):
        why = f", since the boards of {tracker} only time libraries"
    info = run.runtime.describe()
    outputs = file_outputs(model, examples, run.task, run.runtime)
    return Answered(outputs, f"ONNX file by {info.engine} {info.engine_version} on this machine{why}")


def original_outputs(run: Run, network: QuantizedGraph, model: bytes, examples: Any) -> Answered:
    """Return what the network that others are compared with says of examples: where the device does not run
    it, by this machine's own runtime, for the others may run there.

    Args:
        model: its ONNX file.

    Raises:
        LostError: it is on a board that does not answer.
    """
    try:
        return device_outputs(run, network, model, examples)
    except LostError:
        raise
    except TrilobitError as error:
        host = host_runtime()
        info = host.describe()
        through = f"ONNX file by {info.engine} {info.engine_version} on this machine, since {error}"
        return Answered(file_outputs(model, examples, run.task, host), through)
