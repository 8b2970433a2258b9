"""An ONNX file in fp32 as a library of own kernels, compiled here for where it will run. Needs TVM."""

from pathlib import Path

from hw_profiles.runtimes.runtime import Arrays, Runtime
from nas.checks.open_model import open_model
from nas.emit.layer_formats import require_covered
from nas.emit.unit_formats import unit_formats
from nas.export.library.policies import PolicyLibraries, kernel_layers
from nas.export.library.tuned import BuiltLibrary
from nas.run.reporting import QUIET, Reporter, progress_bar
from supernet.ptq.quantization import Quantization


def compile_file(
    path: Path, runtime: Runtime, example: Arrays | None = None, *, reporter: Reporter = QUIET
) -> BuiltLibrary:
    """Return a file as a library, which reads and gives what the file does; its kernels are tuned on the
    device first, as far as they were not.

    Args:
        path: of the file.
        runtime: of own kernels.
        example: what it reads, which binds the sizes that it leaves open.

    Raises:
        TrilobitError: it is no ONNX file, leaves sizes open, or something in it has no kernel; says what.
    """
    shapes = {name: array.shape for name, array in (example or {}).items()}
    model = open_model(path, shapes, feeds=example).model
    require_covered(model, unit_formats(model, runtime), runtime.describe().engine)
    libraries = PolicyLibraries.of(runtime)
    if untuned := libraries.untuned(kernel_layers(model, {})):
        with progress_bar(reporter, "tune kernels", len(untuned)) as update:
            libraries.tune_kernels(untuned, lambda done: update(done, ""))
    return libraries.library(Quantization(model, {}, {}), {})
