"""What runs files on the board, each engine in one class: opened files run, are timed, and tell their
kernels. An engine is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
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


def imported(module: str) -> Any:
    """Return a package that an engine is.

    Raises:
        AgentError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AgentError("engine", f"not installed ({error})") from None


# name -> module of this package, and the class in it
ENGINES = {"onnxruntime": "ort:Ort", "openvino": "openvino:OpenVino", "ai-edge-litert": "litert:Litert"}


def engine_of(asked: Any) -> Any:
    """Return the engine of a request: an object with `version`, `providers` and `capabilities`, which opens
    files: `open(content, exact_sums, names)`. An opened file has `inputs`, `outputs`, `run(inputs)` and
    `once(batch, example)`, which gives what runs it once.

    Raises:
        AgentError: none of that name, it is not installed, or it cannot be used with these options.
    """
    if not isinstance(asked, dict) or asked.get("name") not in ENGINES:
        raise AgentError("request", f"no engine like that: {str(asked)[:80]}")
    module, _, name = ENGINES[asked["name"]].partition(":")
    own = importlib.import_module(f"{__name__.rpartition('.')[0]}.{module}")
    return getattr(own, name)(asked.get("options") or {})
