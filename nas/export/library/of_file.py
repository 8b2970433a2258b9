"""An ONNX file in fp32 as a library of own kernels, compiled here for where it will run. Needs TVM."""

from pathlib import Path

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import Arrays, Runtime
from nas.checks.model_notes import is_quantized
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
        TrilobitError: it is no ONNX file, leaves sizes open, is quantized, or something in it has no kernel;
            says what.
    """
    shapes = {name: array.shape for name, array in (example or {}).items()}
    opened = open_model(path, shapes, feeds=example)
    if quantized := [op for op in opened.outline.operations if is_quantized(op)]:
        raise TrilobitError(
            f"{path}: is quantized already ({', '.join(quantized)}), and libraries are compiled of files in "
            "fp32; `nas export --library` and `nas tune` make quantized ones"
        )
    model = opened.model
    require_covered(model, unit_formats(model, runtime), runtime.describe().engine)
    libraries = PolicyLibraries.of(runtime)
    if untuned := libraries.untuned(kernel_layers(model, {})):
        with progress_bar(reporter, "tune kernels", len(untuned)) as update:
            libraries.tune_kernels(untuned, lambda done: update(done, ""))
    return libraries.library(Quantization(model, {}, {}), {})
