"""What every runtime promises (`nas.Runtime`), and the executables that it compiles (`nas.Executable`)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.runtime import Artifact, Executable, Runtime, TensorInfo
from nas.testing.contract import Contract, expect
from nas.testing.device import job


@dataclass(frozen=True, eq=False)
class RuntimeCase:
    """A runtime and a network that it can run.

    Attributes:
        make: opens the runtime.
    """

    make: Callable[[], Runtime]
    work: Workload

    def compiled(self) -> tuple[Runtime, Executable]:
        """Return the runtime, and the network compiled by it.

        Raises:
            AssertionError: it builds no artifact of the network.
        """
        runtime = self.make()
        [artifact] = runtime.build([job(self.work)])
        if not isinstance(artifact, Artifact):
            raise AssertionError(f"the network cannot be built: {artifact}")
        expect(artifact.kind == runtime.artifact, f"artifacts are {runtime.artifact}, built {artifact.kind}")
        return runtime, runtime.compile(artifact)


def shape_of(tensor: TensorInfo) -> tuple[int, ...]:
    """Return the shape of a tensor with 1 for what is open."""
    return tuple(size or 1 for size in tensor.shape or ())


def runs_and_gives_the_same_again(case: RuntimeCase) -> None:
    """Run what it compiled: the outputs that it says, finite, and the same again for the same inputs."""
    _, executable = case.compiled()
    inputs = {tensor.name: np.zeros(shape_of(tensor), tensor.dtype) for tensor in executable.inputs}
    first, second = executable.run(inputs), executable.run(inputs)
    names = {tensor.name for tensor in executable.outputs}
    expect(set(first) == names, f"it gives {sorted(first)} and says {sorted(names)}")
    for tensor in executable.outputs:
        values = first[tensor.name]
        same = (values.shape, str(values.dtype)) == (shape_of(tensor), tensor.dtype)
        expect(same, f"{tensor.name} is {values.dtype}{values.shape}, said {tensor.dtype}{tensor.shape}")
        expect(np.isfinite(values).all(), f"{tensor.name} is not finite")
        expect(np.array_equal(values, second[tensor.name]), f"{tensor.name} differs when it is run again")


def is_timed_and_names_its_kernels(case: RuntimeCase) -> None:
    """Time what it compiled, more calls taking longer, or say why not; with the kernels that it expects."""
    runtime, executable = case.compiled()
    if runtime.describe().timeless:
        expect(_refusal(executable, runtime.clock), "it is timed, and says that it has no times")
    else:
        runs = executable.timed(runtime.clock)
        # the least disturbed of each
        single, several = (min(runs(calls) for _ in range(5)) for calls in (1, 20))
        expect(0 < single < several, "20 calls take no longer than one")
    kernels, expected = executable.kernels(), runtime.expected_kernels(case.work)
    expect(sum(kernels.values()) > 0, "it names no kernel")
    missing = {name: count for name, count in expected.items() if kernels.get(name, 0) != count}
    expect(not missing, f"expected kernels {missing}, found {dict(kernels)}")


def _refusal(executable: Executable, clock: Clock) -> str:
    """Return why it cannot be timed; empty where it can."""
    try:
        executable.timed(clock)
    except TrilobitError as error:
        return str(error)
    return ""


def says_what_it_computes_in(case: RuntimeCase) -> None:
    """Say the pairs of formats that it has kernels for, its clock, and how it wants networks written."""
    runtime = case.make()
    pairs = {(layer.weight_format, layer.activation_format) for layer in case.work.layers if layer.weighted}
    expect(pairs <= runtime.formats, f"it runs {sorted(pairs)} and says {sorted(runtime.formats)}")
    expect(runtime.clock in ("thread", "wall"), f"its clock is {runtime.clock!r}")
    expect(runtime.dialect.notation in ("qdq", "integer"), f"its notation is {runtime.dialect.notation!r}")


RUNTIME = Contract[RuntimeCase](
    "runtime", (runs_and_gives_the_same_again, is_timed_and_names_its_kernels, says_what_it_computes_in)
)


def check_runtime(make: Callable[[], Runtime], work: Workload) -> None:
    """Try every promise of a runtime.

    Args:
        make: opens the runtime.
        work: a network that it can run.

    Raises:
        BrokenContractError: some are broken; all of them are named.
    """
    RUNTIME(RuntimeCase(make, work))
