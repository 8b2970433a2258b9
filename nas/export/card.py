"""A model card for an exported network: what a person needs to know before running it (Mitchell et al. 2019,
arXiv:1810.03993). All of it comes from the manifest.
"""

from collections import Counter
from collections.abc import Mapping

from hw_profiles.graph.cache import IDS
from hw_profiles.runtimes.onnx_file import EXACT_SUMS
from nas.checks.check import BYTES, AnyInput, Input, TextInput
from nas.export.manifest import Latency, LibraryRecord, Manifest
from nas.export.manifests import AnyManifest
from nas.export.markdown import escaped
from nas.export.seal import EXITS_FILE, MODEL_FILE
from nas.search.objectives import objective
from nas.search.units import show, show_latency
from supernet.data.kinds import examples_called
from supernet.tasks.metric import (
    ACCURACY,
    AGREEMENT,
    BITS_PER_BYTE,
    CALIBRATION,
    FLIPS,
    KL,
    PERPLEXITY,
    WORST_CLASS,
)

SHOWN_CLASSES = 20
_QUALITY = {
    FLIPS.name: "right in the largest network in fp32, wrong here",
    AGREEMENT.name: "same answer as the largest network in fp32",
    CALIBRATION.name: "expected calibration error",
    WORST_CLASS.name: "accuracy on the worst class",
    ACCURACY.name: "the next byte is the first choice",
    PERPLEXITY.name: "perplexity",
    KL.name: "divergence from the largest network in fp32",
}
_REFERENCES = {
    "same/fp32": "the same network in fp32",
    "largest/fp32": "the largest of the space in fp32",
    "mobilenet-v2/fp32": "MobileNetV2 in fp32",
    "mobilenet-v2/int8": "MobileNetV2 in int8",
}


def model_card(manifest: Manifest) -> str:
    """Return the card in Markdown; of the files it lists those that the manifest has so far."""
    parts = (_title, _figures, _use, _formats, _origin)
    return "\n".join(line for part in parts for line in (*part(manifest), "")).rstrip() + "\n"


def needs_exact(manifest: AnyManifest) -> bool:
    """Return whether a network computes what was measured only where integer sums are exact."""
    return manifest.requires.get("integer_sums") == "exact"


def _title(manifest: Manifest) -> list[str]:
    classes = manifest.classes
    listed = ", ".join(map(escaped, classes[:SHOWN_CLASSES])) + (
        ", ..." if len(classes) > SHOWN_CLASSES else ""
    )
    return [
        f"# {escaped(manifest.space)} {escaped(manifest.id)}",
        "",
        f"{_purpose(manifest)} {len(classes)} classes: {listed}. Found by Trilobit for "
        f"{escaped(manifest.device.name)} ({escaped(manifest.device.cpu)}).",
    ]


def _purpose(manifest: Manifest) -> str:
    """Return what it does, up to its classes."""
    if not isinstance(manifest.input, TextInput):
        return "Sorts images into"
    if manifest.input.answers == "examples":
        return "Sorts texts into"
    if manifest.metric == BITS_PER_BYTE.name:
        return "Predicts after every byte of a text the next, of"
    return "Sorts every byte of a text into"


def _figures(manifest: Manifest) -> list[str]:
    accuracy, latency = manifest.accuracy, manifest.latency
    rows = [
        (
            f"test {manifest.metric.replace('_', ' ')}",
            f"{_value(manifest.metric, accuracy.test)} {_of(manifest)}, through {MODEL_FILE}",
        ),
    ]
    first, *against = latency_rows(latency) if latency else [None]
    rows += [first] if first else []
    rows += [(_QUALITY[n], _value(n, value)) for n, value in manifest.quality.items() if n in _QUALITY]
    rows += [*against, *memory_rows(manifest.memory)]
    for way_out in manifest.exits:
        figure = f"{_value(manifest.metric, way_out.test)} {_of(manifest)}, through {EXITS_FILE}"
        rows.append((f"the same after {way_out.blocks} blocks", figure))
    for name, file in manifest.files.items():
        rows.append((escaped(name), f"{show(objective('size'), file.bytes)}, sha256 {file.sha256[:16]}..."))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def latency_rows(latency: Latency) -> list[tuple[str, str]]:
    """Return a file's latency, then what it is compared with, as rows of a table."""
    source = "looked up, not measured" if latency.replayed else f"measured through {escaped(latency.through)}"
    own = f"{show_latency(latency.median_s, latency.iqr_s, latency.load)}; {source}"
    against = [
        (f"latency against {_REFERENCES.get(name, escaped(name))}", f"{ratio:.2f} x, in the same run")
        for name, ratio in latency.ratios.items()
        if ratio is not None
    ]
    return [("latency", own), *against]


def memory_rows(memory: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return what a file needs on a microcontroller, as rows of a table."""
    return [
        (escaped(name), f"{value:,.0f} bytes, counted by TensorFlow Lite Micro")
        for name, value in memory.items()
    ]


def _of(manifest: Manifest) -> str:
    """Return how many examples the figures are of."""
    n = manifest.accuracy.n
    return f"of {n} {examples_called('tokens' if isinstance(manifest.input, TextInput) else 'images')}"


def _value(metric: str, value: float) -> str:
    known = objective(metric)
    return f"{value:.2%}" if known.unit == "fraction" else show(known, value)


def _use(manifest: Manifest) -> list[str]:
    if isinstance(manifest.input, TextInput):
        return _use_of_text(manifest, manifest.input)
    return _use_of_images(manifest, manifest.input)


def _use_of_text(manifest: Manifest, text: TextInput) -> list[str]:
    filled = text.vocabulary > BYTES
    behind = f"; shorter ones are filled up with {BYTES}" if filled else ""
    each = "example" if text.answers == "examples" else "token"
    return [
        "## Use",
        "",
        f"Input `{IDS}`: (batch, {text.length}) int64, the first {text.length} bytes of a text in UTF-8"
        f"{behind}. Output: one logit per class for each {each}, in the order of `classes` in manifest.json.",
        "",
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "",
        *session_lines(needs_exact(manifest)),
        f'ids = list(open("text.txt", "rb").read({text.length}))',
        *([f"ids += [{BYTES}] * ({text.length} - len(ids))"] if filled else []),
        f'logits = session.run(None, {{"{IDS}": np.array([ids], np.int64)}})[0]',
        "```",
        "",
        _needed(manifest),
    ]


def _use_of_images(manifest: Manifest, image: Input) -> list[str]:
    h, w, c = image.shape
    if image.pixels:
        text = f"`image`: (batch, {h}, {w}, {c}) uint8 pixels; the file normalises them itself"
        lines = ['x = np.stack(planes, -1).round().clip(0, 255).astype("uint8")[None]']
    else:
        mean, std = (", ".join(f"{v:.6g}" for v in values) for values in (image.mean, image.std))
        text = (
            f"`image`: (batch, {c}, {h}, {w}) float32: pixels / 255, minus the mean ({mean}), over the "
            f"standard deviation ({std})"
        )
        lines = [
            f"mean, std = (np.reshape(v, ({c}, 1, 1)) for v in ([{mean}], [{std}]))",
            'x = ((np.stack(planes) / 255 - mean) / std).astype("float32")[None]',
        ]
    return [
        "## Use",
        "",
        f"Input {text}. Images of another size are resized first (bilinear, antialiased). Output: one logit "
        "per class, in the order of `classes` in manifest.json.",
        "",
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image",
        "",
        *session_lines(needs_exact(manifest)),
        f'image = Image.open("image.png").convert("{"L" if c == 1 else "RGB"}")',
        f"pixels = np.asarray(image, np.float32).reshape(image.height, image.width, {c})",
        f"planes = [Image.fromarray(pixels[..., i]).resize(({w}, {h}), Image.Resampling.BILINEAR) "
        f"for i in range({c})]",
        *lines,
        'logits = session.run(None, {"image": x})[0]',
        "```",
        "",
        _needed(manifest),
        *_library(manifest.library, manifest.input),
    ]


def session_lines(exact: bool) -> list[str]:
    """Return lines of code that open the file so that it computes what was measured.

    Args:
        exact: whether that needs exact integer sums.
    """
    if not exact:
        return [f'session = onnxruntime.InferenceSession("{MODEL_FILE}")']
    return [
        "options = onnxruntime.SessionOptions()",
        "# for x86 processors without VNNI; leave it out elsewhere, where it only costs time",
        f'options.add_session_config_entry("{EXACT_SUMS}", "1")',
        f'session = onnxruntime.InferenceSession("{MODEL_FILE}", options)',
    ]


def _needed(manifest: Manifest) -> str:
    checked = "`nas verify` on this folder checks it on another machine."
    if not needs_exact(manifest):
        return f"It computes the same on every processor, with no option. {checked}"
    return (
        "Its integer weights have 8 bits: on x86 processors without VNNI ONNX Runtime's kernels add pairs of "
        "products in 16 bits, and saturate. The option keeps them exact there, 1.3 to 1.5 times slower; "
        "elsewhere results are the same without it, and the measured latency is without it. "
        f"`nas export --portable` makes files that need none. {checked}"
    )


def _library(record: LibraryRecord | None, reads: AnyInput) -> list[str]:
    if record is None:
        return []
    example = "text" if isinstance(reads, TextInput) else "image"
    kind = f"integer-only between {example} and logits" if record.integer_only else "fp32 layers among them"
    if record.own_formats:
        kind += " in formats of its own (weights and products in 8 bits, residual streams in 16)"
    measured = "" if record.test_accuracy is None else f"; test accuracy {record.test_accuracy:.2%}"
    if record.latency is not None:
        measured += f", {_time(record.latency.median_s)} on {escaped(record.latency.cpu)}"
    return [
        "",
        f"`model.so` is the same network for {escaped(record.target)}, weights inside, {kind}{measured}. It "
        f"needs neither TVM nor Python: `int trilobit_run(const void* {example}, void* logits)` takes "
        f"{_taken(reads)}; see example.c and example.py. One thread at a time.",
    ]


def _taken(reads: AnyInput) -> str:
    """Return what a library takes."""
    if isinstance(reads, TextInput):
        return f"the ids of one text, ({reads.length},) int64"
    return "one normalised image (h, w, c) float32"


def _formats(manifest: Manifest) -> list[str]:
    counts = Counter(manifest.policy.values())
    text = ", ".join(f"{count} in {escaped(fmt)}" for fmt, count in sorted(counts.items()))
    return [
        "## Number formats",
        "",
        f"Of {sum(counts.values())} layers: {text}. ONNX opset {manifest.opset}.",
    ]


def _origin(manifest: Manifest) -> list[str]:
    versions = ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in manifest.versions.items())
    tuned = ""
    if tuning := manifest.finetuning:
        tuned = f" Fine-tuned for {tuning.epochs} epochs{'' if tuning.kept else ', not kept'}."
    genes = " ".join(map(str, manifest.genes))
    return [
        "## Origin",
        "",
        f"Data: {escaped(manifest.data)}. Weights: of a once-for-all supernet.{tuned} Genes: `{genes}`.",
        "",
        f"Made with {versions}.",
        "",
        f"{manifest.metric.replace('_', ' ').capitalize()} is that of the test part of this data; nothing is "
        f"known about {'text' if isinstance(manifest.input, TextInput) else 'images'} of another kind.",
    ]


def _time(seconds: float) -> str:
    return show(objective("latency"), seconds)
