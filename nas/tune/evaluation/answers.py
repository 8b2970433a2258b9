"""What files say of examples, run where the network will run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime
from supernet.data.samples import Samples

Outputs = dict[str, Any]  # by output: (n, ...), or n arrays where their sizes differ
TOGETHER = 16  # examples of one call, where a file takes any number
TOLERANCE = 1e-3  # of the largest value, by which examples may answer otherwise together than alone


@dataclass(frozen=True)
class Runner:
    """How files of one model are run.

    Attributes:
        runtime: compiles them.
        together: examples of one call.
    """

    runtime: Runtime
    together: int = 1

    def __call__(self, content: bytes, samples: Samples, *, alone: bool = False) -> Outputs:
        """Return what a file says of examples.

        Args:
            alone: run one example at a time: scales that are found from what is run are then of one example.

        Raises:
            TrilobitError: the runtime refuses the file, or fails while it runs.
        """
        try:
            executable = self.runtime.compile(Artifact(content))
            return _run_samples(executable, samples, 1 if alone else self.together)
        except TrilobitError:
            raise
        except Exception as error:  # whatever an engine rejects
            raise TrilobitError(f"the file does not run: {one_line(error)}") from None


def _run_samples(executable: Executable, samples: Samples, together: int) -> Outputs:
    """Return what an executable says of examples, so many at a time."""
    rows: dict[str, list[NDArray[Any]]] = {info.name: [] for info in executable.outputs}
    for start in range(0, len(samples), together):
        if together == 1:
            outputs = executable.run(samples.feed(start))
            for name, array in outputs.items():
                rows[name].append(array)
            continue
        inputs = {name: _joined(array[start : start + together]) for name, array in samples.inputs.items()}
        for name, array in executable.run(inputs).items():
            rows[name] += [array[row : row + 1] for row in range(len(array))]
    return {name: _stacked(arrays) for name, arrays in rows.items()}


def runner_for(runtime: Runtime, original: bytes, samples: Samples) -> Runner:
    """Return how to run files of a model: several examples at a time where every dimension that would be a
    batch is open, and the original then says the same as one by one.

    Raises:
        TrilobitError: the runtime does not run the original.
    """
    try:
        executable = runtime.compile(Artifact(original))
        few = samples[np.arange(min(3, len(samples)))]
        alone = _run_samples(executable, few, 1)
        if _open_batch(executable, few) and _same(alone, _tried(executable, few)):
            return Runner(runtime, TOGETHER)
    except TrilobitError:
        raise
    except Exception as error:  # whatever an engine rejects
        raise TrilobitError(
            f"{runtime.describe().engine} does not run the model: {one_line(error)}"
        ) from None
    return Runner(runtime)


def _open_batch(executable: Executable, samples: Samples) -> bool:
    tensors = (*executable.inputs, *executable.outputs)
    single = all(array.ndim > 1 and array.shape[1] == 1 for array in samples.inputs.values())
    return single and all(info.shape and info.shape[0] is None for info in tensors)


def _tried(executable: Executable, samples: Samples) -> Outputs:
    try:
        return _run_samples(executable, samples, len(samples))
    except Exception:  # a reshape that only takes one
        return {}


def _same(alone: Outputs, together: Outputs) -> bool:
    return together.keys() == alone.keys() and all(
        np.shape(alone[name]) == np.shape(together[name]) and _near(alone[name], together[name])
        for name in alone
    )


def _near(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.dtype.kind != "f":
        return bool((first == second).all())
    return bool(np.abs(first - second).max(initial=0) <= TOLERANCE * np.abs(first).max(initial=0))


def _joined(array: NDArray[Any]) -> NDArray[Any]:
    """Return (k, ...) a batch of k examples (k, 1, ...)."""
    return np.ascontiguousarray(array.reshape(len(array), *array.shape[2:]))


def _stacked(arrays: list[NDArray[Any]]) -> Any:
    same = len({array.shape for array in arrays}) == 1
    return np.stack(arrays) if same else arrays
