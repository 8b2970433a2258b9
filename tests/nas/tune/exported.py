"""Tuned networks as `nas export` writes them, of made-up figures."""

from pathlib import Path
from typing import Any

import onnxruntime

from hw_profiles.documents import parse
from hw_profiles.runtimes.info import DeviceInfo
from nas.checks.confined import confined
from nas.checks.engine import named_engine
from nas.checks.examples import example_inputs
from nas.checks.network_tasks import NetworkFacts
from nas.emit.to_onnx import described
from nas.export.package import network_files
from nas.export.tuned_manifest import TUNED_SCHEMA
from nas.export.written import replace_written
from supernet.data.samples import Samples
from supernet.space.space import candidate_id
from tests.nas.exported import latency

EXAMPLES = 4
ID = candidate_id("0123", [1])


def write_tuned(
    parent: Path, network: bytes, samples: Samples, *, key: Path | None = None, **more: Any
) -> Path:
    """Write the folder of a tuned network into another; return it."""
    model = described(network, {"trilobit.id": ID})
    file = parent / "unsealed.onnx"
    parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model)
    device = named_engine("ort")
    inputs = [vars(stated) for stated in example_inputs(samples.inputs)]
    request = {"path": str(file), "device": device.request(), "inputs": inputs, "examples": EXAMPLES}
    document, _ = confined("nas.checks.network_tasks:examine_network", request)
    facts = parse(NetworkFacts, document)
    file.unlink()
    claims = tuned_claims(
        opset=facts.opset,
        domains=facts.domains,
        inputs=document["inputs"],
        outputs=document["outputs"],
        kernels={"integer": facts.integer_kernels},
        answers=document["answers"],
    )
    files = network_files(ID, {"model.onnx": model}, {**claims, **more}, schema=TUNED_SCHEMA, key=key)
    replace_written(parent, files)
    return parent / ID


def tuned_claims(**more: Any) -> dict[str, Any]:
    """Return all of a tuned manifest but its digests and files, of made-up figures; `more` are others."""
    device = DeviceInfo("ort-cpu-1t", "another CPU", "onnxruntime", "1.31", "CPUExecutionProvider")
    agreement = {"value": 0.97, "standard_error": 0.02, "unit": "fraction", "direction": "max"}
    return {
        "id": ID,
        "genes": [1],
        "space_fingerprint": "0123",
        "policy": {"/conv": "int8"},
        "units": 3,
        "opset": 17,
        "inputs": [],
        "outputs": [],
        "bound": {"n": 1},
        "origin": {"name": "mine.onnx", "sha256": "0" * 64, "bytes": 1000},
        "data": {"source": "photos/", "calibration": 8, "choosing": 16, "judging": 32},
        "seed": 0,
        "device": device.to_json(),
        "instruction_set": "AVX2",
        "quality": {"n": 32, "metrics": {"agreement": {**agreement, "meaning": "answers of the original"}}},
        "latency": latency(1e-5, references_s={"fp32": 2e-5}, ratios={"fp32": 0.5}),
        "kernels": {"integer": 0},
        "versions": {"onnxruntime": onnxruntime.__version__},
        "predicted": {"latency": {"value": 1e-5}},
        **more,
    }
