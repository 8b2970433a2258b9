"""Stage 6: write the chosen networks as ONNX, check them, and measure what is shipped. The test part is used
here, once.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hw_profiles.backend import Job
from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_atomic, write_json
from hw_profiles.lowering import lower
from hw_profiles.measurement import Measurement
from nas.evaluate import Evaluator
from nas.export.to_onnx import emit, needed_opset
from nas.export.verify import Parity, check_parity, file_accuracy
from nas.objectives import OBJECTIVES, to_min
from nas.progress import progress_bar
from nas.run import Run
from nas.search.loop import choose_finalists
from nas.stages.finetune import finetuned
from supernet.network import Network
from supernet.space import Candidate

MODEL = "model.onnx"


@dataclass(frozen=True)
class Accuracy:
    """Shares of right labels through a file, in 0..1."""

    validation: float
    test: float


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning did to a network. The test part is reported and decides nothing."""

    before: Accuracy
    after: Accuracy

    @property
    def kept(self) -> bool:
        """Whether the fine-tuned weights are shipped: they are no worse on search-validation."""
        return self.after.validation >= self.before.validation


@dataclass(frozen=True, eq=False)
class Shipped:
    """One exported network: its entry in the front, its file, what was checked and what it reaches; and what
    fine-tuning did, None without.
    """

    entry: Mapping[str, Any]
    model: bytes
    parity: Parity
    accuracy: Accuracy
    tuning: Tuning | None = None


def run_export(run: Run, console: Console) -> list[Path]:
    """Export `export.count` networks of the front; gives the manifests' paths.

    Raises:
        TrilobitError: there is no front, or it is of another space.
    """
    front = read_json(run.front_path, "front/1")
    space = run.family.space()
    if front["space"]["fingerprint"] != space.fingerprint:
        raise TrilobitError(f"{run.front_path}: of another space; run `nas search` again")
    chosen = pick(front, run.config.export.count)
    for old in run.export_path.glob("*"):
        if old.is_dir() and old.name not in {entry["id"] for entry in chosen}:
            shutil.rmtree(old)
    evaluator = Evaluator(run)
    tuned = finetuned(evaluator, [_candidate(run, entry) for entry in chosen], console)
    with progress_bar(console, "export", len(chosen)) as update:
        shipped = []
        for done, entry in enumerate(chosen, 1):
            shipped.append(_ship(run, evaluator, entry, tuned.get(entry["id"])))
            update(done, entry["id"])
    latencies = _measure(evaluator, front["reference"], shipped)
    _say_tuning([one.tuning for one in shipped if one.tuning is not None], console)
    return [
        _write(run, one, latency, latencies[-1]) for one, latency in zip(shipped, latencies, strict=False)
    ]


def pick(front: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """`count` well-spread networks of the front: the best in each objective, then the loneliest."""
    measured = [o for o in front["objectives"] if o["name"] in front["candidates"][0]["measured"]]
    objectives = [OBJECTIVES[o["name"]] for o in measured]
    values = np.array([[c["measured"][o.name]["value"] for o in objectives] for c in front["candidates"]])
    rows = choose_finalists(to_min(objectives, values), count)
    return [front["candidates"][row] for row in sorted(rows)]


def _candidate(run: Run, entry: Mapping[str, Any]) -> Candidate:
    return run.family.space().candidate(np.array(entry["genes"], np.int16))


def _ship(run: Run, evaluator: Evaluator, entry: Mapping[str, Any], tuned: Network | None) -> Shipped:
    """The network with the supernet's weights, or with its own where they were tuned and that helped."""
    data = run.dataset
    options: dict[str, Any] = {"batch": run.config.device.batch, "metadata": _metadata(run, entry)}
    network = evaluator.network(_candidate(run, entry))
    model = emit(network, **options)
    accuracy = Accuracy(entry["measured"]["accuracy"]["value"], file_accuracy(model, data.test, data))
    tuning = None
    if tuned is not None:
        changed = emit(tuned, **options)
        parts = (data.validation, data.test)
        tuning = Tuning(accuracy, Accuracy(*(file_accuracy(changed, part, data) for part in parts)))
        if tuning.kept:
            network, model, accuracy = tuned, changed, tuning.after
    parity = check_parity(model, network, data.validation, data)
    return Shipped(entry, model, parity, accuracy, tuning)


def _say_tuning(tunings: Sequence[Tuning], console: Console) -> None:
    if not tunings:
        return
    gains = [100 * (one.after.validation - one.before.validation) for one in tunings]
    worse = sum(not one.kept for one in tunings)
    console.print(
        f"fine-tuned {len(tunings)} networks: {np.median(gains):+.2f} points on search-validation in the "
        f"median; {worse} got worse and are shipped as they were"
    )


def _metadata(run: Run, entry: Mapping[str, Any]) -> dict[str, str]:
    """What a user of the file alone needs to know."""
    data = run.dataset
    return {
        "trilobit.id": entry["id"],
        "trilobit.space": run.config.space.name,
        "classes": "\n".join(data.classes),
        "mean": " ".join(map(str, data.mean)),
        "std": " ".join(map(str, data.std)),
        "preprocessing": "scale pixels to 0..1, resize (bilinear, antialias) to the "
        "input size, subtract mean, divide by std",
    }


def _measure(
    evaluator: Evaluator, reference: Mapping[str, Any], shipped: Sequence[Shipped]
) -> list[Measurement]:
    """All shipped files and, last, the reference network, measured in turns."""
    run = evaluator.run
    candidate = _candidate(run, reference)
    model = evaluator.emit(candidate)
    jobs = [
        Job(run.family.workload(_candidate(run, one.entry)), partial(_bytes, one.model)) for one in shipped
    ]
    return evaluator.latencies([*jobs, Job(run.family.workload(candidate), partial(_bytes, model))])


def _bytes(model: bytes) -> bytes:
    return model


def _through(run: Run) -> str:
    """What was timed: only ONNX Runtime runs the shipped file itself."""
    if run.recorded:
        return "nothing: the times are looked up"
    engine = run.backend.describe().engine
    return MODEL if engine == "onnxruntime" else f"the same network built by {engine}"


def _finetuning(run: Run, tuning: Tuning | None) -> dict[str, Any] | None:
    """What fine-tuning did, for the manifest."""
    if tuning is None:
        return None
    return {
        "epochs": run.config.export.finetune,
        "learning_rate": run.config.export.finetune_learning_rate,
        "kept": tuning.kept,
        "before": asdict(tuning.before),
        "after": asdict(tuning.after),
    }


def compared(latency: Measurement, reference: Measurement) -> dict[str, Any]:
    """A network's latency for the manifest, beside the largest one in fp32; nulls where the device cannot run
    that.
    """
    runs = reference.error is None
    return {
        "samples_s": list(latency.samples_s),
        "median_s": latency.median_s,
        "iqr_s": latency.iqr_s,
        "quiet_share": latency.quiet_share,
        "reference_id": "largest/fp32",
        "reference_median_s": reference.median_s if runs else None,
        "ratio_to_reference": latency.median_s / reference.median_s if runs else None,
    }


def _write(run: Run, shipped: Shipped, latency: Measurement, reference: Measurement) -> Path:
    """The folder of one network; the manifest comes last, so a folder with one is whole."""
    folder = run.export_path / shipped.entry["id"]
    (folder / "manifest.json").unlink(missing_ok=True)
    write_atomic(folder / MODEL, shipped.model)
    entry = shipped.entry
    manifest = {
        "schema": "export/1",
        "id": entry["id"],
        "genes": entry["genes"],
        "arch": entry["arch"],
        "policy": entry["policy"],
        "files": {MODEL: {"sha256": hashlib.sha256(shipped.model).hexdigest(), "bytes": len(shipped.model)}},
        "opset": needed_opset(lower(run.family.workload(_candidate(run, entry)))),
        "device": run.backend.describe().to_json(),
        "accuracy": {
            "test": shipped.accuracy.test,
            "n": len(run.dataset.test.labels),
            "validation": shipped.accuracy.validation,
        },
        "finetuning": _finetuning(run, shipped.tuning),
        "latency": {**compared(latency, reference), "replayed": run.recorded, "through": _through(run)},
        "predicted": entry["predicted"],
        "parity": asdict(shipped.parity),
        "versions": read_json(run.folder / "env.json", "env/1")["versions"],
    }
    path: Path = folder / "manifest.json"
    write_json(path, manifest)
    return path
