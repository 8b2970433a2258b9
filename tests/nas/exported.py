"""Exported networks of random weights, and forgeries of them: changed, with every hash computed anew."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnx import helper

from hw_profiles.documents import parse
from hw_profiles.files import write_json
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.ort.runtime import INTEGER_OPS, optimised_ops
from nas.checks.check import AnyInput, Input
from nas.checks.expected import expected_answers
from nas.checks.parity import file_metric
from nas.emit.to_onnx import described, emit
from nas.export.manifest import SCHEMA, Manifest
from nas.export.package import network_files
from nas.export.seal import CLAIMS, claims_of, digest_of, file_entries
from nas.export.written import replace_written
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import candidate_id

FLOAT = onnx.TensorProto.FLOAT


def claims(**more: Any) -> dict[str, Any]:
    """Return all of a manifest but its digests and files, of made-up figures; `more` are other entries."""
    device = DeviceInfo("ort-cpu-1t", "another CPU", "onnxruntime", "1.31", "CPUExecutionProvider")
    return {
        "id": candidate_id("0123", [0]),
        "space": "digits-mbconv",
        "space_fingerprint": "0123",
        "genes": [0],
        "policy": {"stem": "int8"},
        "opset": 21,
        "requires": {},
        "data": "digits",
        "seed": 0,
        "classes": [str(i) for i in range(10)],
        "input": Input((8, 8, 1), (0.5,), (0.25,)).to_json(),
        "device": device.to_json(),
        "accuracy": {"test": 0.9, "n": 359, "validation": 0.92},
        "finetuning": None,
        "latency": latency(1e-5),
        "predicted": {"accuracy": {"value": 0.9, "std": 0.01}},
        "parity": {"agreement": 1.0, "images": 144, "integer_layers": 9, "integer_kernels": 9},
        "answers": {"images": 1, "labels": [0], "largest_logits": [1.0]},
        "versions": {"onnxruntime": onnxruntime.__version__},
        **more,
    }


def latency(median_s: float, **more: Any) -> dict[str, Any]:
    """Return a latency as a manifest has it; `more` are other entries."""
    return {
        "samples_s": [median_s] * 5,
        "median_s": median_s,
        "iqr_s": 0.01 * median_s,
        "quiet_share": 1.0,
        "references_s": {},
        "ratios": {},
        "replayed": False,
        "through": "model.onnx",
        **more,
    }


def manifest(**more: Any) -> Manifest:
    """Return a manifest of made-up figures; `more` are other entries."""
    files = file_entries({"model.onnx": b"model"})
    return parse(Manifest, {"schema": SCHEMA, "files": files, "digest": "0" * 64, **claims(**more)})


def write_exported(
    parent: Path,
    network: QuantizedGraph,
    image: AnyInput,
    data: Any,
    *,
    files: Mapping[str, bytes] | None = None,
    key: Path | None = None,
    **more: Any,
) -> Path:
    """Write the folder of a network into another as `nas export` does; return it.

    Args:
        files: besides the ONNX file.
        key: to sign with.
        more: entries of the manifest, instead of or besides the usual ones.
    """
    name = candidate_id("0123", [0])
    model = emit(network, metadata={"trilobit.id": name})
    needs = {"integer_sums": "exact"} if needs_exact_sums(model) else {}
    layers = sum(optimised_ops(model)[op] for op in INTEGER_OPS)
    accuracy = {"test": file_metric(model, data.test, data), "n": len(data.test)}
    parity = {"agreement": 1.0, "images": len(data.validation)}
    measured = claims(
        classes=list(data.classes),
        input=image.to_json(),
        requires=needs,
        accuracy={**accuracy, "validation": file_metric(model, data.validation, data)},
        parity={**parity, "integer_layers": layers, "integer_kernels": layers},
        answers=expected_answers(network, image).to_json(),
    )
    every = {"model.onnx": model, **(files or {})}
    replace_written(parent, network_files(name, every, {**measured, **more}, key=key))
    return parent / name


def copied(exported: Path, folder: Path) -> Path:
    """Return a copy of an exported network."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def forged(
    exported: Path,
    folder: Path,
    *,
    files: Mapping[str, bytes] | None = None,
    listed: Mapping[str, Any] | None = None,
    stamp: bool = True,
    **parts: Any,
) -> Path:
    """Return a copy in which files and entries of the manifest are others, and all digests fit: what somebody
    does who knows how they are made. An entry of None is left out.

    Args:
        listed: the files that the manifest lists, instead of all that are there.
        stamp: whether the ONNX file gets the digest of the new claims too; it must be one then.
    """
    copied(exported, folder)
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    document = {**json.loads((exported / "manifest.json").read_text()), **parts}
    document = {key: value for key, value in document.items() if value is not None}
    model = folder / "model.onnx"
    if stamp:
        model.write_bytes(described(model.read_bytes(), {CLAIMS: claims_of(document)}))
    entries = file_entries({name: (folder / name).read_bytes() for name in document["files"]})
    document["files"] = entries if listed is None else listed
    write_json(folder / "manifest.json", {**document, "digest": digest_of(document)})
    return folder


def endless(shape: Sequence[int] = (1, 1, 6, 6), *, count: int = 2**62) -> bytes:
    """Return an ONNX file of a loop that adds so many times."""
    image, logits, inside, more = (
        helper.make_tensor_value_info(name, FLOAT, shape) for name in ("image", "logits", "inside", "more")
    )
    turn = helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, [])
    on, still = (helper.make_tensor_value_info(n, onnx.TensorProto.BOOL, []) for n in ("on", "still"))
    nodes = [
        helper.make_node("Add", ["inside", "inside"], ["more"]),
        helper.make_node("Identity", ["on"], ["still"]),
    ]
    body = helper.make_graph(nodes, "body", [turn, on, inside], [still, more])
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "begin", "image"], ["logits"], body=body)],
        "endless",
        [image],
        [logits],
        [
            helper.make_tensor("count", onnx.TensorProto.INT64, [], [count]),
            helper.make_tensor("begin", onnx.TensorProto.BOOL, [], [True]),
        ],
    )
    return saved(graph)


def greedy(size: int = 2**40) -> bytes:
    """Return an ONNX file that wants a tensor of so many floats."""
    image, logits = (helper.make_tensor_value_info(n, FLOAT, [1, 4]) for n in ("image", "logits"))
    graph = helper.make_graph(
        [
            helper.make_node("Tile", ["image", "repeats"], ["large"]),
            helper.make_node("ReduceSum", ["large"], ["sum"]),
            helper.make_node("Add", ["image", "sum"], ["logits"]),
        ],
        "greedy",
        [image],
        [logits],
        [helper.make_tensor("repeats", onnx.TensorProto.INT64, [2], [size // 4, 1])],
    )
    return saved(graph)


def saved(graph: onnx.GraphProto) -> bytes:
    """Return a graph as a file."""
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    data: bytes = model.SerializeToString()
    return data
