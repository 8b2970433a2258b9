"""Latency of exported files, measured in turns with what they are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hw_profiles.measure.measurement import Measurement
from hw_profiles.runtimes.runtime import Job, WritesFiles
from nas.evaluation.on_device import DeviceEvaluator
from nas.export.build import Exported
from nas.export.context import ExportContext
from nas.export.references import LARGEST, SAME, baseline_jobs, fp32_candidate, fp32_job
from nas.export.seal import MODEL_FILE
from nas.run.run import Run


@dataclass(frozen=True)
class Timed:
    """One network's latency, and that of what it is compared with, in the same run."""

    own: Measurement
    references: Mapping[str, Measurement]


def measure(
    device: DeviceEvaluator, largest: ExportContext, exported: Sequence[Exported]
) -> list[Timed] | list[None]:
    """Measure all files, each architecture in fp32, the space's largest network and MobileNetV2, in turns;
    None of each where the device has no times.
    """
    if device.builder.run.timeless:
        return [None] * len(exported)
    space = device.builder.run.family.space()
    contexts = [network.context for network in exported]
    files = [Job(network.context.workload, partial(bytes, network.model)) for network in exported]
    in_fp32 = [fp32_candidate(space, context.candidate) for context in contexts]
    same = {
        candidate.id: fp32_job(device.builder, candidate) for candidate in in_fp32 if candidate is not None
    }
    shared = {
        LARGEST: Job(largest.workload, partial(device.builder.emit, largest.candidate)),
        **baseline_jobs(device.builder, contexts[0].candidate),
    }
    measured = device.latencies([*files, *same.values(), *shared.values()])
    times = dict(zip((*same, *shared), measured[len(files) :], strict=True))
    general = {name: times[name] for name in shared}
    return [
        Timed(own, {**({SAME: times[baseline.id]} if baseline is not None else {}), **general})
        for own, baseline in zip(measured[: len(files)], in_fp32, strict=True)
    ]


def compared(latency: Timed) -> dict[str, Any]:
    """Return a network's latency for the manifest, beside those it is compared with; null where the device
    cannot run one of them.
    """
    own = latency.own
    medians = {
        name: time.median_s if time.error is None else None for name, time in latency.references.items()
    }
    return {
        "samples_s": list(own.samples_s),
        "median_s": own.median_s,
        "iqr_s": own.iqr_s,
        "quiet_share": own.quiet_share,
        "load": own.load,
        "references_s": medians,
        "ratios": {name: None if time is None else own.median_s / time for name, time in medians.items()},
    }


def timed_through(run: Run) -> str:
    """Return what was timed: the exported file itself where the device's runtime takes it."""
    runtime = run.device.runtime
    if run.recorded or runtime is None:
        return "nothing: the times are looked up"
    engine = run.device.describe().engine
    if isinstance(runtime, WritesFiles):
        return runtime.file_name
    return MODEL_FILE if runtime.artifact == "onnx" else f"the same network built by {engine}"
