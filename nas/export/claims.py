"""What is claimed of an exported network: its manifest, and the metadata inside its file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import Measurement
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.runtime import own_files
from nas.checks.check import BYTES as PADDING
from nas.checks.check import AnyInput, TextInput
from nas.emit.file_types import needed_opset
from nas.emit.to_onnx import described
from nas.evaluation.micro import micro_metrics
from nas.export.build import Accuracy, Exported, Tuning
from nas.export.library.target import ExportedLibrary
from nas.export.package import network_files
from nas.export.seal import DECODER_FILE, EXITS_FILE, MODEL_FILE
from nas.export.timing import Timed, compared, timed_through
from nas.run.documents import Environment
from nas.run.run import Run
from supernet.tasks.metric import main_metric

COMPACT = (",", ":")  # of JSON inside a file


def exported_files(run: Run, exported: Exported, latency: Timed | None) -> dict[str, bytes]:
    """Return the folder of one network and its archive, by paths in the folder of exports."""
    library = exported.library or ExportedLibrary({}, {})
    model = described(exported.model, _metadata(run, exported, latency.own if latency else None))
    key = Path(run.config.export.sign) if run.config.export.sign else None
    claims = _claims(run, exported, latency)
    exits = {EXITS_FILE: exported.exits.model} if exported.exits else {}
    decoder = {DECODER_FILE: exported.decoder} if exported.decoder else {}
    own = own_files(run.runtime, exported.model)
    files = {MODEL_FILE: model, **library.files, **exits, **decoder, **own}
    return network_files(exported.context.entry.id, files, claims, key=key)


def _claims(run: Run, exported: Exported, latency: Timed | None) -> dict[str, Any]:
    entry, data = exported.context.entry, run.task
    memory = _memory(run, exported.model)
    timed = None
    if latency is not None:
        timed = {**compared(latency), "replayed": run.recorded, "through": timed_through(run)}
    return {
        "id": entry.id,
        "space": run.config.space.name,
        "space_fingerprint": run.family.space().fingerprint,
        "genes": entry.genes,
        "arch": entry.arch,
        "policy": entry.policy,
        "opset": needed_opset(exported.context.lowered, portable=run.config.export.portable),
        "requires": {"integer_sums": "exact"} if needs_exact_sums(exported.model) else {},
        "data": data.name,
        "seed": run.config.seed,
        "classes": list(data.classes),
        "input": exported.reads.to_json(),
        "device": run.device.describe().to_json(),
        "metric": main_metric(data).name,
        "accuracy": {**asdict(exported.accuracy), "n": len(data.test)},
        "quality": dict(exported.quality),
        "library": dict(exported.library.record) if exported.library else None,
        "finetuning": _finetuning(run, exported.tuning),
        "exits": [asdict(each) for each in exported.exits.exits] if exported.exits else [],
        "latency": timed,
        **({"memory": memory} if memory else {}),
        "predicted": {name: figure.to_json() for name, figure in entry.predicted.items()},
        "parity": asdict(exported.parity),
        "answers": exported.answers.to_json(),
        "versions": dict(read_document(run.folder / "env.json", Environment).versions),
    }


def _memory(run: Run, model: bytes) -> dict[str, float]:
    """Return what a file takes on a microcontroller; nothing of one that does not run there, such as one that
    resizes its pixels.
    """
    try:
        return micro_metrics(run, model)
    except TrilobitError:
        return {}


def _finetuning(run: Run, tuning: Tuning | None) -> dict[str, Any] | None:
    if tuning is None:
        return None
    return {
        "epochs": run.config.export.finetune,
        "optimiser": tuning.method.optimiser,
        "learning_rate": tuning.method.learning_rate,
        "rounded": tuning.method.rounded,
        "kept": tuning.kept,
        "before": _by_part(tuning.before),
        "after": _by_part(tuning.after),
    }


def _by_part(accuracy: Accuracy) -> dict[str, float]:
    return {"validation": accuracy.validation, "test": accuracy.test}


def _metadata(run: Run, exported: Exported, latency: Measurement | None) -> dict[str, str]:
    """Return what a user of the file alone needs to know."""
    data, entry = run.task, exported.context.entry
    return {
        "trilobit.id": entry.id,
        "trilobit.space": run.config.space.name,
        "trilobit.genes": json.dumps(entry.genes, separators=COMPACT),
        "trilobit.policy": json.dumps(entry.policy, separators=COMPACT),
        f"trilobit.test_{main_metric(data).name}": f"{exported.accuracy.test:.6g}",
        **({} if latency is None else {"trilobit.latency_s": f"{latency.median_s:.6g}"}),
        "trilobit.device": run.device.describe().name,
        "trilobit.integer_sums": "exact" if needs_exact_sums(exported.model) else "any",
        "classes": "\n".join(data.classes),
        **_preprocessing(exported.reads),
    }


def _preprocessing(reads: AnyInput) -> dict[str, str]:
    """Return how examples become what the file reads."""
    if isinstance(reads, TextInput):
        filled = f"; {PADDING} behind the end" if reads.vocabulary > PADDING else ""
        return {"preprocessing": f"the first {reads.length} bytes of a text in UTF-8{filled}"}
    resized = "resize to the input size (bilinear, antialias)"
    normalised = f"scale pixels to 0..1, {resized}, subtract mean, divide by std"
    return {
        "mean": " ".join(map(str, reads.mean)),
        "std": " ".join(map(str, reads.std)),
        "resize": "stretch",
        "preprocessing": resized if reads.pixels else normalised,
    }
