"""A run folder with the real `digits-mbconv` family and MADE-UP numbers: for tests of the report only."""

import itertools
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from hw_profiles.files import write_atomic, write_json
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.latency_model import Calibration, WholeNetwork, count_rows
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import save_profile
from hw_profiles.runtimes.info import DeviceInfo
from nas.export.manifest import SCHEMA
from nas.stages.quality import row
from predictors.assessment.learning_curve import CurvePoint
from predictors.assessment.quality import judge
from supernet.families.family import Family, load_family
from supernet.space.space import Candidate
from tests.nas.exported import claims, latency

DEVICE = "made-up-cpu"
OBJECTIVES = [
    {"name": "accuracy", "unit": "", "direction": "max", "bound": None},
    {"name": "latency", "unit": "s", "direction": "min", "bound": 9e-5},
    {"name": "size", "unit": "B", "direction": "min", "bound": None},
]
INT8_SPEED = {"conv": 2.2, "stem": 0.7, "linear": 1.3, "add": 0.9, "add_converted": 0.9, "pool": 0.8}


@cache
def layer_s(layer: Layer) -> float:
    """A made-up cost in seconds: int8 helps 1x1 convolutions and hurts most depthwise ones."""
    fp32_s = 4e-7 + macs(layer) / 4e10 + np.prod(layer.in_shape) / 5e10
    if layer.activation_format == "fp32" or layer.kind in ("quantize", "dequantize"):
        return float(fp32_s)
    wiggle = 1 + 0.35 * np.sin(layer.in_shape[0] + 3 * layer.in_shape[1] + layer.kernel)
    speed = 0.9 if layer.depthwise else INT8_SPEED[layer.kind]
    return float(fp32_s / (speed * wiggle))


def network_s(work: Workload) -> float:
    return 6e-6 + sum(map(layer_s, work.layers))


def network_bytes(work: Workload) -> int:
    return sum(params(layer) * (4 if layer.weight_format == "fp32" else 1) for layer in work.layers)


def entry(family: Family, candidate: Candidate, rng: np.random.Generator, *, layers: bool) -> dict[str, Any]:
    """One candidate of front.json."""
    work, arch = family.workload(candidate), family.arch(candidate)
    policy = {name: str(precision) for name, precision in family.policy(candidate).items()}
    low = sum(value != "fp32" for value in policy.values()) / len(policy)
    accuracy = 0.985 - 0.5 * np.exp(-sum(map(macs, work.layers)) / 1.5e5) ** 0.5 - 0.004 * low
    latency, size = network_s(work), network_bytes(work)
    metric_noise, latency_noise = rng.normal(0, 0.004), rng.normal(0, 0.02)
    stages = [[dict(b) for b in stage] for stage in arch.stages]
    document = {
        "id": candidate.id,
        "genes": list(candidate.genes),
        "arch": {"resolution": arch.resolution, "stages": stages},
        "policy": policy,
        "predicted": {
            "accuracy": {"value": float(accuracy), "std": 0.004},
            "latency": {"value": latency, "std": 0.01 * latency},
            "size": {"value": size},
            "memory": {"value": peak_bytes(work)},
        },
        "measured": {
            "accuracy": {"value": float(min(0.999, accuracy + metric_noise)), "std": 0.002},
            "latency": {"value": latency * (1 + latency_noise), "iqr": 0.012 * latency},
            "size": {"value": size},
        },
    }
    if layers:
        pairs = zip(work.names, work.layers, strict=True)
        document["layers"] = [{"name": name, "key": layer.key()} for name, layer in pairs]
    return document


def front_entries(
    family: Family, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Finalists and other networks, the former the best of many by made-up accuracy and latency."""
    space = family.space()
    candidates = [space.candidate(genome) for genome in space.sample(400, rng=rng)]
    drawn = [entry(family, candidate, rng, layers=True) for candidate in candidates]
    drawn.sort(key=lambda e: e["measured"]["latency"]["value"])
    best, front = 0.0, []
    for document in drawn:
        if document["measured"]["accuracy"]["value"] > best:
            best = document["measured"]["accuracy"]["value"]
            front.append(document)
    chosen = {document["id"] for document in front}
    others = [document for document in drawn if document["id"] not in chosen][::4]
    for document in others:
        del document["layers"]
    for document in others[::2]:
        document["measured"] = {}
    return front, others


def made_up_profile(family: Family, rng: np.random.Generator) -> DeviceProfile:
    space = family.space()
    works = [family.workload(space.candidate(genome)) for genome in space.sample(60, rng=rng)]
    layers = {layer for work in works for layer in work.layers}
    plain = {layer.with_formats("fp32", "fp32") for layer in layers}
    table = {
        layer: Measurement(tuple((layer_s(layer) * (1 + rng.normal(0, 0.01, 5))).tolist()))
        for layer in sorted(layers | {p for p in plain if "quantize" not in p.kind}, key=Layer.key)
    }
    table[parse_key("conv 8x9x9>8 k3s1g1 relu w=int8 a=int8")] = Measurement(error="not supported")
    kinds = itertools.cycle(["fp32", "int8", "mixed"])
    device = DeviceInfo(DEVICE, "Made-up CPU @ 0 GHz", "onnxruntime", "0.0", "CPU")
    profile = DeviceProfile(device, MeasurePlan(), table)
    networks = tuple(
        WholeNetwork(
            next(kinds),
            i % 4 > 0,
            profile.sums_s(work),
            count_rows(work),
            (profile.predict_s(work) + 6e-6) * (1 + float(rng.normal(0, 0.02))),
            1e-7,
        )
        for i, work in enumerate(works[:36])
    )
    return replace(profile, calibration=Calibration(intercept_s=6e-6, networks=networks))


def write_config(run: Path) -> Path:
    config = {
        "data": {"source": "digits"},
        "device": {"name": DEVICE},
        "space": {"name": "digits-mbconv"},
        "search": {"objectives": ["accuracy", "latency", "size"]},
        "constraints": {"latency": "90us"},
    }
    write_atomic(run / "run.toml", tomli_w.dumps(config))
    return run


def write_export(run: Path, document: dict[str, Any], reference_s: float) -> None:
    measured, folder = document["measured"], run / "export" / document["id"]
    median, size = measured["latency"]["value"], measured["size"]["value"]
    ratios = {"references_s": {"largest/fp32": reference_s}, "ratios": {"largest/fp32": median / reference_s}}
    claimed = claims(
        id=document["id"],
        accuracy={"test": measured["accuracy"]["value"] - 0.003, "n": 359, "validation": 0.97},
        latency=latency(median, **ratios),
        predicted=document["predicted"],
        quality={"flips": 0.0125, "agreement": 0.97, "calibration": 0.031, "worst_class": 0.885},
    )
    files = {"model.onnx": {"sha256": "0" * 64, "bytes": int(size)}}
    manifest = {"schema": SCHEMA, **claimed, "files": files, "digest": "0" * 64}
    write_json(folder / "manifest.json", manifest)


def quality_of(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of quality.json."""
    cost = rng.uniform(1, 2, 60)
    accuracy = 0.9 + 0.05 * cost + rng.normal(0, 0.02, 60)
    said = accuracy + rng.normal(0, 0.006, 60)
    quality = judge(
        said, accuracy, std=np.full(60, 0.006), bands_of=("latency", cost), noise=0.002, n_train=200
    )
    curve = tuple(CurvePoint(n, 0.9 - n**-0.5, 0.1 * n**-0.5) for n in (50, 100, 200))
    exact = judge(cost, cost)
    return [
        row("accuracy", "cross-validation", replace(quality, curve=curve)),
        row("latency", "profile", judge(cost, 1.01 * cost, std=0.02 * cost, noise=1e-7, n_train=9)),
        row("size", "finalists", exact),
    ]


def write_run(run: Path) -> Path:
    """A finished run of made-up numbers."""
    rng = np.random.default_rng(0)
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    space = family.space()
    front, others = front_entries(family, rng)
    write_config(run)
    environment = {"versions": {"trilobit": "0.1.0", "torch": "0.0", "onnxruntime": "0.0"}, "seed": 0}
    date = "2026-01-02T03:04:05+00:00"
    write_json(run / "env.json", {"schema": "env/1", **environment, "host": {"cpus": 2}, "date": date})
    save_profile(made_up_profile(family, rng), run / "profiles" / f"{DEVICE}.json")
    write_json(run / "quality.json", {"schema": "quality/2", "predictor": "mlp", "rows": quality_of(rng)})
    rounds = [{"round": i, "evaluations": 40 * (i + 1), "hypervolume": 0.7 - 0.2 * 0.6**i} for i in range(8)]
    write_json(
        run / "front.json",
        {
            "schema": "front/1",
            "space": {"name": space.family, "fingerprint": space.fingerprint, "size": space.size},
            "device": DEVICE,
            "objectives": OBJECTIVES,
            "reference_point": [0.5, 2e-4, 4e5],
            "hypervolume": rounds[-1]["hypervolume"],
            "rounds": rounds,
            "candidates": front,
            "evaluated": others,
        },
    )
    reference_s = network_s(family.workload(family.extremes()["largest/fp32"]))
    for document in front[:: max(1, len(front) // 4)]:
        write_export(run, document, reference_s)
    stages = {"profile": 412.0, "train": 1630.5, "sample": 210.0, "fit": 8.1, "search": 95.0, "export": 31.0}
    write_json(run / "timings.json", {"schema": "timings/1", "stages": stages})
    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests only read it and write its report."""
    return write_run(tmp_path_factory.mktemp("made-up") / "run")


@pytest.fixture
def empty_run(tmp_path: Path) -> Path:
    """A run of which no stage has been run."""
    return write_config(tmp_path)


@pytest.fixture
def own_run(run_folder: Path, tmp_path: Path) -> Path:
    """A finished run that the test may change."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))
