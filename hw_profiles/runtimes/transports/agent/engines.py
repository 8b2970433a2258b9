"""What runs files on the board, each engine in one class: opened files run, are timed, and tell their
kernels. An engine is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_profiles.runtimes.transports.agent.messages import AgentError

if TYPE_CHECKING:
    Arrays = Mapping[str, Any]

EXACT_SUMS = "session.x64quantprecision"
ORT_DTYPES = {
    "float16": "float16",
    "float": "float32",
    "double": "float64",
}  # others are called as numpy does
ORT_CPU = "CPUExecutionProvider"
ORT_LOG_NOTHING = 4


class Info:
    """An input or an output.

    Attributes:
        shape: None where any size is allowed.
    """

    def __init__(self, name: str, shape: Sequence[int | None], dtype: str) -> None:
        self.name, self.shape, self.dtype = name, list(shape), dtype

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"name": self.name, "shape": self.shape, "dtype": self.dtype}


def example_of(infos: Sequence[Info], batch: int, example: Arrays | None) -> dict[str, Any]:
    """Return what a file reads while it is timed: the example, or where there is none the random numbers of
    `hw_profiles.runtimes.file_runtime.timed_inputs`.

    Raises:
        ValueError: the example lacks an input.
    """
    if example is None:
        rng = np.random.default_rng(0)
        return {info.name: _random(info, batch, rng) for info in infos}
    missing = [info.name for info in infos if info.name not in example]
    if missing:
        raise ValueError("the example has no {}".format(", ".join(missing)))
    return {info.name: np.ascontiguousarray(example[info.name]) for info in infos}


def _random(info: Info, batch: int, rng: Any) -> Any:
    shape = tuple(batch if size is None else size for size in info.shape)
    dtype = np.dtype(info.dtype)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, min(256, np.iinfo(dtype).max + 1), shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


class OrtFile:
    """A file opened by ONNX Runtime."""

    def __init__(self, session: Any, batch: int) -> None:
        self._session, self._batch = session, batch
        self.inputs = [_ort_info(argument) for argument in session.get_inputs()]
        self.outputs = [_ort_info(argument) for argument in session.get_outputs()]

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
        os.environ.setdefault(
            "ORT_DISABLE_TELEMETRY", "1"
        )  # or it writes to the home folder, and sends events
        self._ort = _imported("onnxruntime")
        self._threads, self._batch = int(options.get("threads", 1)), int(options.get("batch", 1))
        self._provider = str(options.get("provider", ORT_CPU))
        self.version = str(self._ort.__version__)
        self.providers = list(self._ort.get_available_providers())

    def check(self) -> None:
        """Raise `AgentError` where it has no such provider here."""
        if self._provider not in self.providers:
            installed = ", ".join(name.replace("ExecutionProvider", "") for name in self.providers)
            raise AgentError("engine", f"it has no execution provider {self._provider}; it has {installed}")

    def open(self, content: bytes, exact_sums: bool) -> OrtFile:
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

    def profile(self, content: bytes, example: Arrays | None, runs: int, folder: str) -> tuple[bytes, bytes]:
        """Return the graph that is really run, and the engine's own record of so many runs."""
        path = os.path.join(folder, "optimised.onnx")
        session = self._session(content, optimised=path, profile=os.path.join(folder, "profile"))
        infos = [_ort_info(argument) for argument in session.get_inputs()]
        inputs = example_of(infos, self._batch, example)
        for _ in range(runs):
            session.run(None, inputs)
        return _taken(path), _taken(session.end_profiling())

    def _session(
        self, content: bytes, exact_sums: bool = False, optimised: str = "", profile: str = ""
    ) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = ORT_LOG_NOTHING
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if exact_sums:
            options.add_session_config_entry(EXACT_SUMS, "1")
        if optimised:
            options.optimized_model_filepath = optimised
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        return self._ort.InferenceSession(content, options, [self._provider])


def _ort_info(argument: Any) -> Info:
    element = argument.type.replace("tensor(", "").replace(")", "")
    shape = [size if isinstance(size, int) else None for size in argument.shape]
    return Info(argument.name, shape, ORT_DTYPES.get(element, element))


def _taken(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    os.unlink(path)
    return content


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AgentError("engine", f"not installed ({error})") from None


ENGINES = {"onnxruntime": Ort}  # type: Mapping[str, Callable[[Mapping[str, Any]], Any]]


def engine_of(asked: Any) -> Any:
    """Return the engine of a request.

    Raises:
        AgentError: none of that name, it is not installed, or it cannot be used with these options.
    """
    if not isinstance(asked, dict) or asked.get("name") not in ENGINES:
        raise AgentError("request", "no engine like that: %.80r" % (asked,))
    engine = ENGINES[asked["name"]](asked.get("options") or {})
    engine.check()
    return engine
