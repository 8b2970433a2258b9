"""LiteRT on the board, of `.tflite` files: what they are made of, and which way round their channels are, is
known where they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.runtimes.transports.agent.engines import Info, example_of, imported

if TYPE_CHECKING:
    Arrays = Mapping[str, Any]


class LitertFile:
    """An interpreter of a file."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        interpreter.allocate_tensors()
        names = self._signed()
        self._reads, self._gives = (
            [dict(each, name=names.get(each["index"], each["name"])) for each in details]
            for details in (interpreter.get_input_details(), interpreter.get_output_details())
        )
        self.inputs, self.outputs = (
            [
                Info(each["name"], [int(n) for n in each["shape"]], str(np.dtype(each["dtype"])))
                for each in some
            ]
            for some in (self._reads, self._gives)
        )

    def _signed(self) -> dict[int, str]:
        """Return what inputs and outputs are called by the file's only signature, by their places."""
        signatures = self._interpreter.get_signature_list()
        if len(signatures) != 1:
            return {}
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        details = dict(runner.get_input_details(), **runner.get_output_details())
        return {each["index"]: name for name, each in details.items()}

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """Return the outputs by name."""
        self._set(inputs)
        self._interpreter.invoke()
        return {each["name"]: self._interpreter.get_tensor(each["index"]) for each in self._gives}

    def once(self, batch: int | None, example: Arrays | None) -> Callable[[], object]:
        """Return what runs it once, on inputs that stay where they are."""
        self._set(example_of(self.inputs, 1, example))
        invoke = self._interpreter.invoke  # type: Callable[[], object]
        return invoke

    def _set(self, inputs: Arrays) -> None:
        for each in self._reads:
            self._interpreter.set_tensor(each["index"], np.ascontiguousarray(inputs[each["name"]]))


class Litert:
    """LiteRT, as `hw_profiles.runtimes.litert.runtime` opens it.

    Args:
        options: `provider` (`XNNPACK` or `builtin`), `threads`.

    Raises:
        AgentError: it is not installed.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._module = imported("ai_edge_litert.interpreter")
        self._options = options
        self.version = _version()
        self.providers, self.capabilities = ["XNNPACK", "builtin"], []  # type: list[str], list[str]

    def open(self, content: bytes, exact_sums: bool, names: Sequence[str]) -> LitertFile:
        """Open a file."""
        kinds = self._module.OpResolverType
        own = self._options.get("provider", "XNNPACK") == "XNNPACK"
        interpreter = self._module.Interpreter(
            model_content=content,
            num_threads=int(self._options.get("threads", 1)),
            experimental_op_resolver_type=kinds.AUTO if own else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        return LitertFile(interpreter)


def _version() -> str:
    from importlib.metadata import version

    return version("ai-edge-litert")
