"""Who writes the file of a policy, and who runs it: an ONNX file, or a library of own kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.device import Device, MeasuredDevice, TimesOnly
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


def times_files(runtime: Runtime) -> bool:
    """Return whether a model's own file is timed beside those of its policies: not where these are libraries
    on a board.
    """
    return not isinstance(runtime, LibrariesAndFiles) or runtime.together


def first_library(runtime: Runtime, model: ImportedModel) -> bytes:
    """Return a model in fp32 as a library of kernels that need not be tuned: it computes the same, and says
    about how long it takes before they are.

    Raises:
        TrilobitError: a unit has no kernel, or there is no compiler.
    """
    from nas.export.library.policies import PolicyLibraries

    assert isinstance(runtime, LibrariesAndFiles)
    libraries = PolicyLibraries.of(runtime.libraries, tuned=False)
    return libraries.write(Quantization(model, {}, {}), {})


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
    compares the answers of libraries with those of the model's file, and on this machine their times too.

    Raises:
        TrilobitError: its boards only answer with times.
    """
    runtime = device.runtime
    if runtime is None or runtime.artifact != "library":
        return device
    times_only = not isinstance(device, MeasuredDevice) or isinstance(device.transport, TimesOnly)
    if times_only or not hasattr(runtime, "remember"):
        raise TrilobitError(
            "`nas tune` asks libraries for answers, and the boards of a tracker only say how long they take: "
            "reach the board over ssh or adb (ssh:USER@HOST/tvm), or leave tracker and key out"
        )
    assert isinstance(device, MeasuredDevice)
    together = runtime.describe().board is None
    return replace(device, runtime=LibrariesAndFiles(runtime, host_runtime(), together=together))


@dataclass(frozen=True)
class LibrariesAndFiles:
    """A runtime of own kernels that leaves ONNX files to another.

    Attributes:
        libraries: builds and runs libraries.
        files: runs ONNX files, on this machine.
        together: whether libraries run there too, so that both are timed in the same turns.
    """

    libraries: Runtime
    files: Runtime
    together: bool = True

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
