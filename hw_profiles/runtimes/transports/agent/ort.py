"""ONNX Runtime on the board."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hw_profiles.runtimes.transports.agent.engines import Info, example_of, imported
from hw_profiles.runtimes.transports.agent.messages import AgentError

if TYPE_CHECKING:
    Arrays = Mapping[str, Any]

EXACT_SUMS = "session.x64quantprecision"
DTYPES = {"float16": "float16", "float": "float32", "double": "float64"}  # others are called as numpy does
CPU = "CPUExecutionProvider"
LOG_NOTHING = 4


class OrtFile:
    """A file opened by ONNX Runtime."""

    def __init__(self, session: Any, batch: int) -> None:
        self._session, self._batch = session, batch
        self.inputs = [_info(argument) for argument in session.get_inputs()]
        self.outputs = [_info(argument) for argument in session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """Return the outputs of one batch by name."""
        values = self._session.run(None, dict(inputs))
        return {info.name: value for info, value in zip(self.outputs, values)}

    def once(self, batch: int | None, example: Arrays | None) -> Callable[[], object]:
        """Return what runs it once, on inputs that stay where they are."""
        binding = self._session.io_binding()
        for name, array in example_of(self.inputs, batch or self._batch, example).items():
            binding.bind_cpu_input(name, array)
        for info in self.outputs:
            binding.bind_output(info.name)
        return lambda: self._session.run_with_iobinding(binding)


class Ort:
    """ONNX Runtime, with the session that `hw_profiles.runtimes.ort.runtime.open_session` opens.

    Args:
        options: `threads`, `provider` with its whole name, `batch`.

    Raises:
        AgentError: it is not installed, or has no such provider here.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        # or it writes to the home folder, and sends events
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        self._ort = imported("onnxruntime")
        self._threads, self._batch = int(options.get("threads", 1)), int(options.get("batch", 1))
        self._provider = str(options.get("provider", CPU))
        self.version = str(self._ort.__version__)
        self.providers = list(self._ort.get_available_providers())
        self.capabilities = []  # type: list[str]
        if self._provider not in self.providers:
            installed = ", ".join(name.replace("ExecutionProvider", "") for name in self.providers)
            raise AgentError("engine", f"it has no execution provider {self._provider}; it has {installed}")

    def open(self, content: bytes, exact_sums: bool, names: Sequence[str]) -> OrtFile:
        """Open a file."""
        session = self._session(content, exact_sums=exact_sums)
        started = session.get_providers()[0]
        if started != self._provider:
            raise ValueError(f"{self._provider} could not start; ONNX Runtime fell back to {started}")
        return OrtFile(session, self._batch)

    def graph(self, content: bytes, folder: str) -> bytes:
        """Return the graph that is really run."""
        path = os.path.join(folder, "optimised.onnx")
        self._session(content, optimised=path)
        return _taken(path)

    def profile(
        self, content: bytes, example: Arrays | None, runs: int, folder: str, names: Sequence[str]
    ) -> tuple[bytes, bytes]:
        """Return the graph that is really run, and the engine's own record of so many runs."""
        path = os.path.join(folder, "optimised.onnx")
        session = self._session(content, optimised=path, profile=os.path.join(folder, "profile"))
        infos = [_info(argument) for argument in session.get_inputs()]
        inputs = example_of(infos, self._batch, example)
        for _ in range(runs):
            session.run(None, inputs)
        return _taken(path), _taken(session.end_profiling())

    def _session(
        self, content: bytes, exact_sums: bool = False, optimised: str = "", profile: str = ""
    ) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = LOG_NOTHING
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if exact_sums:
            options.add_session_config_entry(EXACT_SUMS, "1")
        if optimised:
            options.optimized_model_filepath = optimised
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return self._ort.InferenceSession(content, options, [self._provider])


def _info(argument: Any) -> Info:
    element = argument.type.replace("tensor(", "").replace(")", "")
    shape = [size if isinstance(size, int) and size >= 0 else None for size in argument.shape]
    return Info(argument.name, shape, DTYPES.get(element, element))


def _taken(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    os.unlink(path)
    return content
