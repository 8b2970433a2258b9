"""A model card for somebody's tuned network: what a person needs to know before running it (Mitchell et al.
2019, arXiv:1810.03993). All of it comes from the manifest.
"""

from collections import Counter
from collections.abc import Sequence

from hw_profiles.graph.formats import FP32
from nas.checks.tensor import Tensor
from nas.export.card import latency_rows, memory_rows, needs_exact, session_lines
from nas.export.markdown import escaped, in_code
from nas.export.tuned_manifest import MetricFigure, TunedManifest
from nas.search.objectives import objective
from nas.search.units import show, unit_of


def tuned_card(manifest: TunedManifest) -> str:
    """Return the card in Markdown; of the files it lists those that the manifest has so far."""
    parts = (_title, _figures, _use, _formats, _origin)
    return "\n".join(line for part in parts for line in (*part(manifest), "")).rstrip() + "\n"


def figure_text(figure: MetricFigure) -> str:
    """Return a metric as people read it, with its standard error where that is known.

    >>> figure_text(MetricFigure(0.975, 0.009, "fraction", "max"))
    '97.50 % ± 0.90 %'
    """
    unit = unit_of(figure.unit)
    error = "" if figure.standard_error is None else f" ± {unit.text(figure.standard_error)}"
    return f"{unit.text(figure.value)}{error}"


def _title(manifest: TunedManifest) -> list[str]:
    return [
        f"# {escaped(manifest.origin.name)} {escaped(manifest.id)}",
        "",
        f"{escaped(manifest.origin.name)} with number formats chosen by Trilobit for "
        f"{escaped(manifest.device.name)} ({escaped(manifest.device.cpu)}, "
        f"{escaped(manifest.instruction_set)}). Its weights were not trained again.",
    ]


def _figures(manifest: TunedManifest) -> list[str]:
    quality = manifest.quality
    rows = [
        (_metric_name(name, figure), f"{figure_text(figure)}, {quality.n} examples")
        for name, figure in quality.metrics.items()
    ]
    rows += latency_rows(manifest.latency) if manifest.latency else []
    rows += memory_rows(manifest.memory)
    for name, file in manifest.files.items():
        rows.append((escaped(name), f"{show(objective('size'), file.bytes)}, sha256 {file.sha256[:16]}..."))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _metric_name(name: str, figure: MetricFigure) -> str:
    original = "" if figure.original is None else f", original {unit_of(figure.unit).text(figure.original)}"
    meaning = f" ({escaped(figure.meaning)}{original})" if figure.meaning or original else ""
    return f"{escaped(name)}{meaning}"


def _use(manifest: TunedManifest) -> list[str]:
    return [
        "## Use",
        "",
        f"Inputs: {_listed(manifest.inputs)}. Outputs: {_listed(manifest.outputs)}. They are those of the "
        f"original{_bound(manifest)}.{_fixed(manifest)}{_preprocessing(manifest)}",
        "",
        "```python",
        "import onnxruntime",
        "",
        *session_lines(needs_exact(manifest)),
        f"outputs = session.run(None, {{{', '.join(f'{t.name!r}: ...' for t in manifest.inputs)}}})",
        "```",
        "",
        _needed(manifest),
    ]


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(in_code(str(tensor)) for tensor in tensors)


def _bound(manifest: TunedManifest) -> str:
    sizes = ", ".join(f"{escaped(name)} = {size}" for name, size in manifest.bound.items())
    return f", and sizes that are open in it are open here; it was measured with {sizes}" if sizes else ""


def _fixed(manifest: TunedManifest) -> str:
    values = ", ".join(f"{escaped(name)} = {value}" for name, value in manifest.fixed.items())
    return f" It computes as if {values} whatever it is given there." if values else ""


def _preprocessing(manifest: TunedManifest) -> str:
    steps = [f"{name} {_plain(value)}" for name, value in manifest.data.preprocessing.items()]
    return f" Images were prepared with {escaped(', '.join(steps))}." if steps else ""


def _plain(value: object) -> str:
    return " ".join(map(_plain, value)) if isinstance(value, list | tuple) else f"{value}"


def _needed(manifest: TunedManifest) -> str:
    needs = [f"the operators of {escaped(domain)}" for domain in manifest.domains]
    if needs_exact(manifest):
        needs.append(
            "exact integer sums, which x86 processors without VNNI have only with the option, 1.3 to 1.5 "
            "times slower"
        )
    what = f"It needs {', and '.join(needs)}." if needs else "It needs nothing of the processor."
    return f"{what} `nas verify` on this folder checks it on another machine."


def _formats(manifest: TunedManifest) -> list[str]:
    counts = Counter(manifest.policy.values())
    counts.pop(FP32, None)
    others = manifest.units - counts.total()
    text = ", ".join(f"{count} in {escaped(fmt)}" for fmt, count in sorted(counts.items()))
    rest = f"{others} as they were" if others else ""
    return [
        "## Number formats",
        "",
        f"Of {manifest.units} units: {', '.join(filter(None, (text, rest)))}. ONNX opset {manifest.opset}; "
        f"{manifest.kernels.integer} integer kernels.",
    ]


def _origin(manifest: TunedManifest) -> list[str]:
    data, origin = manifest.data, manifest.origin
    versions = ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in manifest.versions.items())
    described = f" ({escaped(data.described)})" if data.described else ""
    labels = "with right answers" if data.labelled else "without right answers: compared with the original's"
    return [
        "## Origin",
        "",
        f"Made from {escaped(origin.name)}, {show(objective('size'), origin.bytes)}, sha256 {origin.sha256}.",
        "",
        f"Data: {escaped(data.source)}{described}, {labels}; {data.calibration} examples to calibrate on, "
        f"{data.choosing} to choose by, and {data.judging} others for the figures above.",
        "",
        f"Made with {versions}. Nothing is known about examples of another kind.",
    ]
