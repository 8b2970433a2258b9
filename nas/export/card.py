"""A model card for an exported network: what a person needs to know before running it (Mitchell et al. 2019,
arXiv:1810.03993). All of it comes from the manifest.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hw_profiles.backends.ort import EXACT_SUMS
from nas.objectives import OBJECTIVES
from nas.targets import show

MODEL_FILE = "model.onnx"
SHOWN_CLASSES = 20
_REFERENCES = {
    "same/fp32": "the same network in fp32",
    "largest/fp32": "the largest of the space in fp32",
    "mobilenet-v2/fp32": "MobileNetV2 in fp32",
    "mobilenet-v2/int8": "MobileNetV2 in int8",
}


def model_card(manifest: Mapping[str, Any]) -> str:
    """Markdown for a manifest of schema `export/1`."""
    parts = (_title, _figures, _use, _formats, _origin)
    return "\n".join(line for part in parts for line in (*part(manifest), "")).rstrip() + "\n"


def needs_exact(manifest: Mapping[str, Any]) -> bool:
    """Return whether a network computes what was measured only where integer sums are exact."""
    return bool(manifest.get("requires", {}).get("integer_sums") == "exact")


def _title(manifest: Mapping[str, Any]) -> list[str]:
    known = manifest["classes"]
    listed = ", ".join(known[:SHOWN_CLASSES]) + (", ..." if len(known) > SHOWN_CLASSES else "")
    return [
        f"# {manifest['space']} {manifest['id']}",
        "",
        f"Sorts images into {len(known)} classes: {listed}. Found by Trilobit for "
        f"{manifest['device']['name']} ({manifest['device']['cpu']}).",
    ]


def _figures(manifest: Mapping[str, Any]) -> list[str]:
    accuracy, latency = manifest["accuracy"], manifest["latency"]
    source = "looked up, not measured" if latency["replayed"] else f"measured through {latency['through']}"
    rows = [
        ("test accuracy", f"{accuracy['test']:.2%} of {accuracy['n']} images, through {MODEL_FILE}"),
        ("latency", f"{_time(latency['median_s'])}, IQR {_time(latency['iqr_s'])}; {source}"),
    ]
    for name, ratio in latency["ratios"].items():
        if ratio is not None:
            rows.append((f"latency against {_REFERENCES.get(name, name)}", f"{ratio:.2f} x, in the same run"))
    for name, file in manifest["files"].items():
        rows.append((name, f"{show(OBJECTIVES['size'], file['bytes'])}, sha256 {file['sha256'][:16]}..."))
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _use(manifest: Mapping[str, Any]) -> list[str]:
    image = manifest["input"]
    h, w, c = image["shape"]
    if image["pixels"]:
        said = f"`image`: (batch, {h}, {w}, {c}) uint8 pixels; the file normalises them itself"
        line = f"x = pixels.reshape(1, {h}, {w}, {c})  # uint8"
    else:
        mean, std = (", ".join(f"{v:.6g}" for v in image[key]) for key in ("mean", "std"))
        said = (
            f"`image`: (batch, {c}, {h}, {w}) float32: pixels / 255, minus the mean ({mean}), over the "
            f"standard deviation ({std})"
        )
        line = (
            f"x = ((pixels.reshape(1, {h}, {w}, {c}) / 255 - [{mean}]) / [{std}])"
            '.transpose(0, 3, 1, 2).astype("float32")'
        )
    return [
        "## Use",
        "",
        f"Input {said}. Output: one logit per class, in the order of `classes` in manifest.json.",
        "",
        "```python",
        "import onnxruntime",
        *_session(manifest),
        line,
        'logits = session.run(None, {"image": x})[0]',
        "```",
        "",
        _needed(manifest),
        *_library(manifest.get("library")),
    ]


def _session(manifest: Mapping[str, Any]) -> list[str]:
    """Lines of code that open the file so that it computes what was measured."""
    if not needs_exact(manifest):
        return [f'session = onnxruntime.InferenceSession("{MODEL_FILE}")']
    return [
        "options = onnxruntime.SessionOptions()",
        f'options.add_session_config_entry("{EXACT_SUMS}", "1")',
        f'session = onnxruntime.InferenceSession("{MODEL_FILE}", options)',
    ]


def _needed(manifest: Mapping[str, Any]) -> str:
    checked = "`nas verify` on this folder checks it on another machine."
    if not needs_exact(manifest):
        return f"It computes the same on every processor, with no option. {checked}"
    return (
        "Its integer weights have 8 bits: on x86 processors without VNNI ONNX Runtime's kernels add pairs of "
        "products in 16 bits, and saturate. The option keeps them exact there, 1.2 to 1.5 times slower, and "
        f"changes nothing elsewhere; `nas export --portable` makes files that need none. {checked}"
    )


def _library(record: Mapping[str, Any] | None) -> list[str]:
    if record is None:
        return []
    kind = "integer-only between image and logits" if record["integer_only"] else "fp32 layers among them"
    measured = f"; test accuracy {record['test_accuracy']:.2%}" if "test_accuracy" in record else ""
    if "latency" in record:
        measured += f", {_time(record['latency']['median_s'])} on {record['latency']['cpu']}"
    return [
        "",
        f"`model.so` is the same network for `{record['target']}`, weights inside, {kind}{measured}. It "
        "needs neither TVM nor Python: `int trilobit_run(const void* image, void* logits)` takes one "
        "normalised image (h, w, c) float32; see example.c and example.py. One thread at a time.",
    ]


def _formats(manifest: Mapping[str, Any]) -> list[str]:
    counts = Counter(manifest["policy"].values())
    said = ", ".join(f"{count} in {fmt}" for fmt, count in sorted(counts.items()))
    return [
        "## Number formats",
        "",
        f"Of {sum(counts.values())} layers: {said}. ONNX opset {manifest['opset']}.",
    ]


def _origin(manifest: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    tuned = ""
    if tuning := manifest["finetuning"]:
        tuned = f" Fine-tuned for {tuning['epochs']} epochs{'' if tuning['kept'] else ', not kept'}."
    genes = " ".join(map(str, manifest["genes"]))
    return [
        "## Origin",
        "",
        f"Data: {manifest['data']}. Weights: of a once-for-all supernet.{tuned} Genes: `{genes}`.",
        "",
        f"Made with {versions}.",
        "",
        "Accuracy is that of the test part of this data; nothing is known about images of another kind.",
    ]


def _time(seconds: float) -> str:
    return show(OBJECTIVES["latency"], seconds)
