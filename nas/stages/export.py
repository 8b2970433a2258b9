"""Stage 6: write the chosen networks as ONNX, check them, and measure what is shipped. The test part is used
here, once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.lowering import lower
from hw_profiles.measure.measurement import Measurement
from hw_profiles.runtimes.onnx_file import needs_exact_sums
from hw_profiles.runtimes.runtime import Job
from nas.checks.check import Answers, DisagreementError, Input, expected_answers
from nas.checks.parity import Parity, check_parity, file_accuracy
from nas.emit.to_onnx import Normalisation, described, emit, needed_opset
from nas.evaluation.evaluate import Evaluator
from nas.export.library.check import ShippedLibrary, ship_library, wanted_target
from nas.export.library.limits import require_kernels
from nas.export.manifest import MANIFEST, MODEL_FILE
from nas.export.package import network_files
from nas.export.references import LARGEST, SAME, baseline_jobs, fp32_job, plain_candidate
from nas.export.selection import pick
from nas.export.signature import private_key
from nas.export.written import replace_written
from nas.run.documents import Environment
from nas.run.front_document import Entry, read_front
from nas.run.progress import tell_of_waiting
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.stages.finetune import finetuned
from supernet.graph.quantized_graph import Network
from supernet.space.space import Candidate

COMPACT = (",", ":")  # of JSON inside a file
SHOWN = 5  # names in a line


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
    """One exported network: its entry in the front, its file, what was checked and what it reaches; what it
    reads, what it must answer; and what fine-tuning did, None without.
    """

    entry: Entry
    model: bytes
    parity: Parity
    accuracy: Accuracy
    image: Input
    answers: Answers
    tuning: Tuning | None = None
    library: ShippedLibrary | None = None


def run_export(run: Run, reporter: Reporter) -> list[Path]:
    """Export `export.count` networks of the front; gives the manifests' paths. A network whose file or
    library disagrees with the simulation is left out, with a line that says why.

    Raises:
        TrilobitError: there is no front, it is of another space, a library is wanted that cannot be, or every
            network disagrees.
    """
    front = read_front(run.front_path, run.family.space())
    if run.config.export.sign:
        private_key(Path(run.config.export.sign))  # refused before the work
    chosen = pick(front, run.config.export.pick, run.config.export.count)
    if wanted_target(run):
        networks = {
            entry.id: (entry.genes, lower(run.family.workload(_candidate(run, entry))))
            for entry in front.candidates
        }
        require_kernels([entry.id for entry in chosen], networks)
    evaluator = Evaluator(run, portable=run.config.export.portable)
    tuned = finetuned(evaluator, [_candidate(run, entry) for entry in chosen], reporter)
    shipped = _ship_all(evaluator, chosen, tuned, reporter)
    _say_tuning([one.tuning for one in shipped if one.tuning is not None], reporter)
    with progress_bar(reporter, "measure", 1) as update, tell_of_waiting(partial(update, 0)):
        latencies = _measure(evaluator, front.largest, shipped)
    files: dict[str, bytes] = {}
    for one, latency in zip(shipped, latencies, strict=True):
        files |= _files(run, one, latency)
    _say_kept(run, replace_written(run.export_path, files), reporter)
    return [run.export_path / one.entry.id / MANIFEST for one in shipped]


def _candidate(run: Run, entry: Entry) -> Candidate:
    return run.family.space().candidate(np.array(entry.genes, np.int16))


def _ship_all(
    evaluator: Evaluator,
    chosen: Sequence[Entry],
    tuned: Mapping[str, Network],
    reporter: Reporter,
) -> list[Shipped]:
    """Return the networks whose files do what the simulation does; say of the others why they do not ship.

    Raises:
        TrilobitError: there is none.
    """
    shipped, dropped = list[Shipped](), list[str]()
    with progress_bar(reporter, "export", len(chosen)) as update:
        for done, entry in enumerate(chosen, 1):
            try:
                shipped.append(_ship(evaluator.run, evaluator, entry, tuned.get(entry.id)))
            except DisagreementError as error:
                dropped.append(f"{entry.id}: {error}")
            update(done, entry.id)
    if not shipped:
        raise TrilobitError(f"no network can be exported: {'; '.join(dropped)}")
    for reason in dropped:
        reporter.say(f"not exported, {reason}")
    return shipped


def _ship(run: Run, evaluator: Evaluator, entry: Entry, tuned: Network | None) -> Shipped:
    """The network with the supernet's weights, or with its own where they were tuned and that helped."""
    data, config = run.dataset, run.config.export
    options: dict[str, Any] = {
        "batch": None if config.dynamic_batch else run.config.device.batch,
        "pixels": Normalisation(data.mean, data.std) if config.pixels else None,
    }
    network = evaluator.network(_candidate(run, entry))
    model = emit(network, **options)
    if evaluator.portable and not run.sums.reduced:  # other weights than those that the search measured
        validation = file_accuracy(model, data.validation, data, run.runtime)
    else:
        validation = entry.measured["accuracy"].value
    accuracy = Accuracy(validation, file_accuracy(model, data.test, data, run.runtime))
    tuning = None
    if tuned is not None:
        changed = emit(tuned, **options)
        parts = (data.validation, data.test)
        tuning = Tuning(
            accuracy, Accuracy(*(file_accuracy(changed, part, data, run.runtime) for part in parts))
        )
        if tuning.kept:
            network, model, accuracy = tuned, changed, tuning.after
    plain = emit(network) if config.pixels else model  # resized pixels are rounded, the simulation's are not
    parity = check_parity(plain, network, data.validation, data, run.runtime)
    image = _input(run, network)
    answers, library = expected_answers(network, image), ship_library(run, network, plain, image)
    return Shipped(entry, model, parity, accuracy, image, answers, tuning, library)


def _input(run: Run, network: Network) -> Input:
    c, h, w = network.workload.in_shape
    return Input((h, w, c), run.dataset.mean, run.dataset.std, run.config.export.pixels)


def _say_tuning(tunings: Sequence[Tuning], reporter: Reporter) -> None:
    if not tunings:
        return
    gains = [100 * (one.after.validation - one.before.validation) for one in tunings]
    worse = sum(not one.kept for one in tunings)
    reporter.say(
        f"fine-tuned {len(tunings)} networks: {np.median(gains):+.2f} points on search-validation in the "
        f"median; {worse} got worse and are shipped as they were"
    )


def _say_kept(run: Run, kept: Sequence[str], reporter: Reporter) -> None:
    if kept:
        more = f" and {len(kept) - SHOWN} more" if len(kept) > SHOWN else ""
        line = f"kept in {run.export_path}, not of this export: {', '.join(kept[:SHOWN])}{more}"
        reporter.say(line)


def _metadata(run: Run, shipped: Shipped, latency: Measurement) -> dict[str, str]:
    """What a user of the file alone needs to know."""
    data, image, entry = run.dataset, shipped.image, shipped.entry
    resized = "resize to the input size (bilinear, antialias)"
    normalised = f"scale pixels to 0..1, {resized}, subtract mean, divide by std"
    return {
        "trilobit.id": entry.id,
        "trilobit.space": run.config.space.name,
        "trilobit.genes": json.dumps(entry.genes, separators=COMPACT),
        "trilobit.policy": json.dumps(entry.policy, separators=COMPACT),
        "trilobit.test_accuracy": f"{shipped.accuracy.test:.6g}",
        "trilobit.latency_s": f"{latency.median_s:.6g}",
        "trilobit.device": run.backend.describe().name,
        "trilobit.integer_sums": "exact" if needs_exact_sums(shipped.model) else "any",
        "classes": "\n".join(data.classes),
        "mean": " ".join(map(str, data.mean)),
        "std": " ".join(map(str, data.std)),
        "preprocessing": resized if image.pixels else normalised,
    }


@dataclass(frozen=True)
class Timed:
    """One network's latency, and that of what it is compared with, in the same run."""

    own: Measurement
    references: Mapping[str, Measurement]


def _measure(evaluator: Evaluator, largest: Entry, shipped: Sequence[Shipped]) -> list[Timed]:
    """All shipped files, each of them in fp32, the space's largest network and MobileNetV2, in turns."""
    run = evaluator.run
    space = run.family.space()
    candidates = [_candidate(run, one.entry) for one in shipped]
    own = [
        Job(run.family.workload(candidate), partial(_bytes, one.model))
        for candidate, one in zip(candidates, shipped, strict=True)
    ]
    plain = {c.id: found for c in candidates if (found := plain_candidate(space, c)) is not None}
    same = {found.id: fp32_job(evaluator, found) for found in plain.values()}
    shared = {
        LARGEST: fp32_job(evaluator, _candidate(run, largest)),
        **baseline_jobs(evaluator, candidates[0]),
    }
    measured = evaluator.latencies([*own, *same.values(), *shared.values()])
    times = dict(zip((*same, *shared), measured[len(own) :], strict=True))
    general = {name: times[name] for name in shared}
    return [
        Timed(time, {**({SAME: times[plain[c.id].id]} if c.id in plain else {}), **general})
        for c, time in zip(candidates, measured, strict=False)
    ]


def _bytes(model: bytes) -> bytes:
    return model


def _through(run: Run) -> str:
    """Return what was timed: the shipped file itself where the device's runtime takes it."""
    runtime = run.backend.runtime
    if run.recorded or runtime is None:
        return "nothing: the times are looked up"
    engine = run.backend.describe().engine
    return MODEL_FILE if runtime.artifact == "onnx" else f"the same network built by {engine}"


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


def compared(latency: Timed) -> dict[str, Any]:
    """A network's latency for the manifest, beside those it is compared with; null where the device cannot
    run one of them.
    """
    own = latency.own
    medians = {name: one.median_s if one.error is None else None for name, one in latency.references.items()}
    return {
        "samples_s": list(own.samples_s),
        "median_s": own.median_s,
        "iqr_s": own.iqr_s,
        "quiet_share": own.quiet_share,
        "load": own.load,
        "references_s": medians,
        "ratios": {name: None if one is None else own.median_s / one for name, one in medians.items()},
    }


def _files(run: Run, shipped: Shipped, latency: Timed) -> dict[str, bytes]:
    """Return the folder of one network and its archive, by paths in the folder of exports."""
    entry, data = shipped.entry, run.dataset
    library = shipped.library or ShippedLibrary({}, {})
    files = {MODEL_FILE: described(shipped.model, _metadata(run, shipped, latency.own)), **library.files}
    claims = {
        "id": entry.id,
        "space": run.config.space.name,
        "space_fingerprint": run.family.space().fingerprint,
        "genes": entry.genes,
        "arch": entry.arch,
        "policy": entry.policy,
        "opset": needed_opset(lower(run.family.workload(_candidate(run, entry)))),
        "requires": {"integer_sums": "exact"} if needs_exact_sums(shipped.model) else {},
        "data": data.name,
        "seed": run.config.seed,
        "classes": list(data.classes),
        "input": shipped.image.to_json(),
        "device": run.backend.describe().to_json(),
        "accuracy": {
            "test": shipped.accuracy.test,
            "n": len(data.test.labels),
            "validation": shipped.accuracy.validation,
        },
        "library": dict(library.record) or None,
        "finetuning": _finetuning(run, shipped.tuning),
        "latency": {**compared(latency), "replayed": run.recorded, "through": _through(run)},
        "predicted": {name: figure.to_json() for name, figure in entry.predicted.items()},
        "parity": asdict(shipped.parity),
        "answers": shipped.answers.to_json(),
        "versions": dict(read_document(run.folder / "env.json", Environment).versions),
    }
    key = Path(run.config.export.sign) if run.config.export.sign else None
    return network_files(entry.id, files, claims, key=key)
