"""What is claimed of a tuned network: its manifest, and the metadata inside its file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hw_profiles.runtimes.info import DeviceInfo
from nas.checks.network_tasks import NetworkFacts
from nas.export.seal import MODEL_FILE
from nas.export.tuned_manifest import Data, Origin
from nas.run.tuned_document import MeasuredLatency, PartQuality, TunedFront, TunedNetwork

COMPACT = (",", ":")  # of JSON inside a file
OF_LABELS = frozenset({"accuracy", "calibration"})  # metrics that the original has figures of its own in


@dataclass(frozen=True)
class TunedRun:
    """What all networks of one tune have in common.

    Attributes:
        front: as it was judged.
        origin: the file that was tuned.
        data: what it was tuned with.
        seed: of everything random.
        device: what latency was measured on.
        instruction_set: of that processor.
        versions: of the packages that made it.
    """

    front: TunedFront
    origin: Origin
    data: Data
    seed: int
    device: DeviceInfo
    instruction_set: str
    versions: Mapping[str, str]


def tuned_claims(
    run: TunedRun, network: TunedNetwork, facts: NetworkFacts, otherwise: Sequence[str] = ()
) -> dict[str, Any]:
    """Return all of a manifest but its schema, its digest and its files.

    Args:
        facts: what a process of its own says of the file.
        otherwise: a line for each unit that is computed otherwise than its format says.
    """
    front = run.front
    assert network.judging is not None
    return {
        "id": network.id,
        "genes": list(network.genes),
        "space_fingerprint": front.fingerprint,
        "policy": dict(network.policy),
        "units": len(front.units),
        "opset": facts.opset,
        "domains": list(facts.domains),
        "inputs": [asdict(tensor) for tensor in facts.inputs],
        "outputs": [asdict(tensor) for tensor in facts.outputs],
        "bound": dict(front.model.bound),
        "fixed": dict(front.model.fixed),
        "origin": asdict(run.origin),
        "data": asdict(run.data),
        "seed": run.seed,
        "device": run.device.to_json(),
        "instruction_set": run.instruction_set,
        "requires": {"integer_sums": "exact"} if facts.exact_sums else {},
        "quality": _quality(front, network.judging),
        "latency": None if network.latency is None else _latency(front, network.latency),
        **({"memory": dict(network.memory)} if network.memory else {}),
        "kernels": {"integer": facts.integer_kernels, "otherwise": list(otherwise)},
        "answers": facts.answers and facts.answers.to_json(),
        "versions": dict(run.versions),
        "predicted": {name: figure.to_json() for name, figure in network.predicted.items()},
    }


def tuned_metadata(run: TunedRun, network: TunedNetwork) -> dict[str, str]:
    """Return what a user of the file alone needs to know."""
    assert network.judging is not None
    latency = network.latency
    quality = {name: figure.value for name, figure in network.judging.metrics.items()}
    fixed = run.front.model.fixed
    return {
        **({"trilobit.fixed": json.dumps(dict(fixed), separators=COMPACT)} if fixed else {}),
        "trilobit.id": network.id,
        "trilobit.policy": json.dumps(dict(network.policy), separators=COMPACT),
        "trilobit.quality": json.dumps(quality, separators=COMPACT),
        **({} if latency is None else {"trilobit.latency_s": f"{latency.median_s:.6g}"}),
        **{f"trilobit.{name}_bytes": f"{value:.0f}" for name, value in network.memory.items()},
        "trilobit.device": run.device.name,
        "trilobit.original_sha256": run.origin.sha256,
    }


def _quality(front: TunedFront, judged: PartQuality) -> dict[str, Any]:
    original = front.original.judging.metrics if front.original.judging else {}
    metrics = {}
    for metric in front.metrics:
        if (figure := judged.metrics.get(metric.name)) is None:
            continue
        before = original.get(metric.name)
        metrics[metric.name] = {
            "value": figure.value,
            "standard_error": figure.std,
            "unit": metric.unit,
            "direction": metric.direction,
            "meaning": metric.meaning,
            "original": before.value if before is not None and metric.name in OF_LABELS else None,
        }
    return {"n": judged.samples, "metrics": metrics}


def _latency(front: TunedFront, latency: MeasuredLatency) -> dict[str, Any]:
    """Return a file's latency beside the references', which were timed in the same turns."""
    references = {
        reference.name: reference.latency
        for reference in (front.original, *front.references)
        if reference.latency is not None
    }
    return {
        "samples_s": list(latency.samples_s),
        "median_s": latency.median_s,
        "iqr_s": latency.iqr_s,
        "quiet_share": latency.quiet_share,
        "load": latency.load,
        "references_s": {name: time.median_s for name, time in references.items()},
        "ratios": {name: latency.ratio / time.ratio for name, time in references.items()},
        "replayed": False,
        "through": MODEL_FILE,
    }
