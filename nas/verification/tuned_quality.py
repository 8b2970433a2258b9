"""How far a tuned network's answers to some data are from its original's, beside what its manifest says. Both
files run in processes of their own.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.checks.confined import GIB, ConfinedError, Limits, confined
from nas.checks.engine import FileEngine
from nas.export.package import hash_of
from nas.export.tuned_card import figure_text
from nas.export.tuned_manifest import MetricFigure, TunedManifest
from nas.verification.common_checks import TRIAL_S, request_of
from nas.verification.finding import Finding
from supernet.data.input_spec import InputSpec
from supernet.data.preprocessing import parse_preprocessing
from supernet.data.read_samples import read_samples
from supernet.data.samples import Samples
from supernet.tasks.fidelity import fidelity_of

ORIGINAL = "original.onnx"  # in the folder of a tune, two above an exported network's
Run = Callable[[Samples], Mapping[str, np.ndarray[Any, Any]]]
TOGETHER = 64  # examples that a process is given at once
LONGEST_S = 600.0  # that it may take


def check_quality(
    model: Path, manifest: TunedManifest, engine: FileEngine, source: str, run: Run | None = None
) -> Iterator[Finding]:
    """Yield the metrics of the manifest on some data.

    Args:
        model: the ONNX file.
        engine: what runs it.
        source: of the data, as `nas tune --data` takes it.
        run: what the network says of examples, where that is not asked of the ONNX file.

    Raises:
        TrilobitError: the data is not what the network reads, or one of the files does not run.
    """
    original = model.parents[2] / ORIGINAL if len(model.absolute().parents) > 2 else model
    if hash_of(original) != manifest.origin.sha256:
        where = f"not measured: {manifest.origin.name}, which answers are compared with, is not at {original}"
        yield Finding("quality", f"on {manifest.quality.n} examples", where, None)
        return
    fixed = manifest.fixed
    specs = [InputSpec(t.name, t.shape, t.dtype, fixed.get(t.name)) for t in manifest.inputs]
    preprocessing = parse_preprocessing({k: str(v) for k, v in manifest.data.preprocessing.items()})
    samples = read_samples(source, specs, preprocessing, most=manifest.data.judging or manifest.quality.n)
    original_outputs = _outputs(original, engine, samples)
    outputs = dict(run(samples)) if run is not None else _outputs(model, engine, samples)
    metrics, errors = fidelity_of(original_outputs, samples).assess(outputs, samples, original_outputs)
    for name, then in manifest.quality.metrics.items():
        if name in metrics:
            now = MetricFigure(metrics[name], errors.get(name), then.unit, then.direction)
            measured = f"{figure_text(now)} on {len(samples)} examples of {Path(source).name}"
            yield Finding(name, f"{figure_text(then)} on {manifest.quality.n}", measured, None)


def _outputs(model: Path, engine: FileEngine, samples: Samples) -> dict[str, np.ndarray[Any, Any]]:
    """Return what a file says of examples, (n, ...) by output.

    Raises:
        TrilobitError: it does not run, or not in time.
    """
    parts = [
        _some_outputs(model, engine, samples[np.arange(start, min(start + TOGETHER, len(samples)))])
        for start in range(0, len(samples), TOGETHER)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _some_outputs(model: Path, engine: FileEngine, samples: Samples) -> Mapping[str, np.ndarray[Any, Any]]:
    request = request_of(model, engine, names=list(samples.inputs))
    arrays = {f"input_{i}": array for i, array in enumerate(samples.inputs.values())}
    limits = Limits(TRIAL_S + LONGEST_S, memory_bytes=32 * GIB)
    try:
        names, outputs = confined(
            "nas.checks.network_tasks:network_outputs", request, limits=limits, arrays=arrays
        )
        return {str(name): outputs[f"output_{i}"] for i, name in enumerate(names)}
    except (ConfinedError, KeyError, TypeError) as error:
        raise TrilobitError(f"{model}: {engine.title} cannot run it on this data: {error}") from None
