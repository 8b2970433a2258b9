"""Who writes the file of a policy, and who runs it: an ONNX file, or a library of own kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.device import Device, MeasuredDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import (
    Artifact,
    ArtifactKind,
    Dialect,
    Executable,
    Job,
    KernelTime,
    KernelTimer,
    Runtime,
)
from nas.emit.rewrite_onnx import rewrite
from nas.export.library.library import ELF
from nas.export.library.tuned import BuiltLibrary
from supernet.imported.model import ImportedModel
from supernet.ptq.quantization import Policy, Quantization

SCHEDULE_S = 0.18  # that compiling a schedule of a kernel and trying it out takes, about
LIBRARY_S, LIBRARY_S_PER_BYTE = 0.2, 5e-9  # that linking a policy takes, by the bytes of its model
Write = Callable[[Quantization, Policy], bytes]


def writer(runtime: Runtime) -> Write:
    """Return what writes policies for a runtime."""
    if not isinstance(runtime, LibrariesAndFiles):
        return rewrite
    from nas.export.library.policies import PolicyLibraries  # the compiler: only where it is needed

    return PolicyLibraries.of(runtime.libraries).write


def built_library(runtime: Runtime, quantization: Quantization, policy: Policy) -> BuiltLibrary | None:
    """Return the library of a policy; None where files are what a runtime runs."""
    if not isinstance(runtime, LibrariesAndFiles):
        return None
    from nas.export.library.policies import PolicyLibraries

    return PolicyLibraries.of(runtime.libraries).library(quantization, policy)


def untuned_layers(
    runtime: Runtime, model: ImportedModel, formats: Mapping[str, Sequence[str]]
) -> list[Layer]:
    """Return the layers of all policies of a model whose own kernels were not tuned yet; none of files."""
    if (libraries := own_kernels(runtime)) is None:
        return []
    from nas.export.library.policies import PolicyLibraries, kernel_layers

    return PolicyLibraries.of(libraries).untuned(kernel_layers(model, formats))


def tune_kernels(runtime: Runtime, layers: Sequence[Layer], on_done: Callable[[int], None]) -> None:
    """Compile and try out kernels.

    Args:
        on_done: called with how many are done.
    """
    if (libraries := own_kernels(runtime)) is not None:
        from nas.export.library.policies import PolicyLibraries

        PolicyLibraries.of(libraries).tune_kernels(layers, on_done)


def kernels_s(runtime: Runtime, layers: Sequence[Layer]) -> float:
    """Return how long `tune_kernels` takes, about."""
    if not layers or (libraries := own_kernels(runtime)) is None:
        return 0.0
    from nas.export.library.policies import PolicyLibraries

    return SCHEDULE_S * PolicyLibraries.of(libraries).schedules(layers)


def library_s(runtime: Runtime, size_bytes: int) -> float | None:
    """Return how long linking a library of so many bytes takes, about; None where files are what a runtime
    runs.
    """
    return None if own_kernels(runtime) is None else LIBRARY_S + LIBRARY_S_PER_BYTE * size_bytes


def own_kernels(runtime: Runtime) -> Runtime | None:
    """Return what builds libraries; None where files are what a runtime runs."""
    if isinstance(runtime, LibrariesAndFiles):
        return runtime.libraries
    return runtime if runtime.artifact == "library" else None


def with_files(device: Device) -> Device:
    """Return a device of own kernels as one that runs ONNX files too, by this machine's runtime: a tune
    compares the libraries of a model with its file, in the same turns.

    Raises:
        TrilobitError: its kernels run elsewhere.
    """
    runtime = device.runtime
    if runtime is None or runtime.artifact != "library":
        return device
    if not isinstance(device, MeasuredDevice) or not hasattr(runtime, "remember"):
        raise TrilobitError(
            "`nas tune` builds libraries for this machine only: leave tracker and key out, or name a runtime "
            "that takes files on a board, such as ssh:USER@HOST/ort"
        )
    return replace(device, runtime=LibrariesAndFiles(runtime, host_runtime()))


@dataclass(frozen=True)
class LibrariesAndFiles:
    """A runtime of own kernels that leaves ONNX files to another.

    Attributes:
        libraries: builds and runs libraries.
        files: runs ONNX files.
    """

    libraries: Runtime
    files: Runtime

    @property
    def artifact(self) -> ArtifactKind:
        """What is tuned."""
        return self.libraries.artifact

    @property
    def clock(self) -> Clock:
        """Both are timed by one clock: a library is run by the thread that calls it."""
        return self.files.clock

    @property
    def dialect(self) -> Dialect:
        """Of the libraries."""
        return self.libraries.dialect

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """Of the libraries."""
        return self.libraries.formats

    @property
    def integer_kernels(self) -> frozenset[str]:
        """Of the libraries."""
        return self.libraries.integer_kernels

    def describe(self) -> DeviceInfo:
        """Return what builds libraries."""
        return self.libraries.describe()

    def supports(self, layer: Layer) -> bool:
        """Return whether there is a kernel for this layer."""
        return self.libraries.supports(layer)

    def why_not(self, layer: Layer) -> str:
        """Return why there is none."""
        return self.libraries.why_not(layer)

    def build(self, jobs: Sequence[Job]) -> list[Artifact | str]:
        """Build libraries."""
        return self.libraries.build(jobs)

    def compile(self, artifact: Artifact) -> Executable:
        """Load a library, or a file, by how it begins."""
        runtime = self.libraries if artifact.content.startswith(ELF) else self.files
        return runtime.compile(artifact)

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return the kernels of a library, or of a file, where its runtime can tell them."""
        runtime = self.libraries if artifact.content.startswith(ELF) else self.files
        return runtime.kernel_times(artifact, runs) if isinstance(runtime, KernelTimer) else ()

    def expected_kernels(self, workload: Workload) -> Mapping[str, int]:
        """Return the kernels of a library."""
        return self.libraries.expected_kernels(workload)
