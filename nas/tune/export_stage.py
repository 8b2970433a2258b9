"""Files of a tuned front as folders to hand on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import Arrays, Artifact, Runtime, own_files
from nas.checks.check import DisagreementError
from nas.checks.engine import FileEngine, chosen_engine
from nas.emit.kernels import check_kernels
from nas.emit.rewrite_onnx import rewrite
from nas.export.library.library import LIBRARY
from nas.export.library.tuned import export_tuned_library
from nas.export.package import network_files
from nas.export.seal import MANIFEST, MODEL_FILE
from nas.export.signature import private_key
from nas.export.tuned_claims import TunedRun, tuned_claims, tuned_metadata
from nas.export.tuned_manifest import TUNED_SCHEMA, Data, Origin
from nas.export.tuned_selection import pick
from nas.export.written import replace_written, say_left_out
from nas.run.documents import Environment
from nas.run.reporting import Reporter, progress_bar
from nas.run.tuned_document import TunedFront, TunedNetwork
from nas.tune.evaluation.context import TuneContext
from nas.tune.result.examination import MadeUp, examined, made_up_for
from nas.tune.setup.libraries import built_library, times_files
from nas.tune.setup.tuning import Tuning
from supernet.ptq.quantization import Quantization

SHOWN = 5  # names in a line


def run_export(
    context: TuneContext,
    reporter: Reporter,
    *,
    picks: Sequence[str] = ("all",),
    count: int = 0,
    target: Path | None = None,
    key: Path | None = None,
) -> list[Path]:
    """Export networks of the front; return the paths of their manifests. A file that is not what was measured
    is left out, with a line that says why.

    Args:
        picks, count: see `nas.export.tuned_selection.pick`.
        target: folder for them; None takes the run's own.
        key: to sign the manifests with; None leaves that out.

    Raises:
        TrilobitError: there is no front, no network is meant, or none is what was measured.
    """
    tuning = context.tuning
    front = read_document(tuning.front_path, TunedFront)
    if key is not None:
        private_key(key)  # refused before the work
    chosen = pick(front, picks, count)
    exporter = Exporter.of(context, front)
    files: dict[str, bytes] = {}
    kept, left_out = list[str](), dict[str, str]()
    with progress_bar(reporter, "export", len(chosen)) as update:
        for done, network in enumerate(chosen, 1):
            try:
                exported, claims = exporter.export(network)
                files |= network_files(network.id, exported, claims, schema=TUNED_SCHEMA, key=key)
                kept.append(network.id)
                _tell(network.id, claims["kernels"]["otherwise"], reporter)
            except DisagreementError as error:
                left_out[network.id] = str(error)
            update(done, network.id)
    if not kept:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise TrilobitError(f"no file can be exported: {reasons}")
    say_left_out(left_out, reporter.say)
    folder = target or tuning.export_path
    reporter.say(f"{len(kept)} files in {folder}: {', '.join(kept)}")
    if others := replace_written(folder, files, left_out):
        reporter.say(f"kept in {folder}, not of this export: {', '.join(others[:SHOWN])}")
    return [folder / name / MANIFEST for name in kept]


def _tell(name: str, otherwise: Sequence[str], reporter: Reporter) -> None:
    """Say which units are computed otherwise than their formats say; what was measured stays true."""
    if otherwise:
        more = f", and {len(otherwise) - 1} more" if len(otherwise) > 1 else ""
        reporter.say(f"{name}: {otherwise[0]}{more}")


@dataclass(frozen=True, eq=False)
class Exporter:
    """Makes the files of one tune.

    Attributes:
        run: what they have in common.
        quantization: of the model.
        engine: what runs files here: the device's own runtime, or this machine's.
        made_up: what each must answer, elsewhere too.
        runtime: of the device; where it has own kernels a library goes beside each file.
        example: what files read while they are timed.
    """

    run: TunedRun
    quantization: Quantization
    engine: FileEngine
    made_up: MadeUp
    runtime: Runtime
    example: Arrays

    @classmethod
    def of(cls, context: TuneContext, front: TunedFront) -> Self:
        """Return that of a tune."""
        run = _tuned_run(context.tuning, front)
        engine = chosen_engine(context.tuning.config.device.choice, run.device)
        made_up = made_up_for(context.tuning, engine.runtime)
        return cls(run, context.quantization, engine, made_up, context.tuning.runtime, context.tuning.example)

    def export(self, network: TunedNetwork) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Return a network's files and what its manifest claims.

        Raises:
            DisagreementError: a process of its own cannot load it, or answers otherwise.
        """
        metadata = tuned_metadata(self.run, network)
        content = rewrite(self.quantization, network.policy, metadata=metadata)
        executable = self.engine.runtime.compile(Artifact(content, exact_sums=True))
        facts = examined(content, executable, self.engine, self.made_up)
        otherwise = check_kernels(executable, self.engine.runtime, self.quantization, network.policy)
        claims = tuned_claims(self.run, network, facts, otherwise)
        library = built_library(self.runtime, self.quantization, network.policy)
        if library is None:
            own = own_files(self.engine.runtime, content, self.example)
            if claims["latency"] is not None:
                claims["latency"]["through"] = next(iter(own), MODEL_FILE)
            return {MODEL_FILE: content, **own}, claims
        compiled = self.runtime.compile(Artifact(library.code, "library"))
        asked = self.made_up.inputs, self.made_up.examples
        exported = export_tuned_library(library, compiled, *asked, here=times_files(self.runtime))
        claims["latency"]["through"] = LIBRARY  # what was measured; the file beside it has the same formats
        return {MODEL_FILE: content, **exported.files}, {**claims, "library": dict(exported.record)}


def _tuned_run(tuning: Tuning, front: TunedFront) -> TunedRun:
    """Return what the networks of a tune have in common."""
    config, parts, original = tuning.config, tuning.parts, tuning.original
    data = Data(
        source=_name(config.samples.source),
        described=tuning.samples.origin,
        calibration=len(parts.calibration),
        choosing=len(parts.choosing),
        judging=len(parts.judging),
        labelled=tuning.samples.labels is not None,
        preprocessing=config.samples.preprocessing,
        metric=config.tune.metric,
    )
    return TunedRun(
        front=front,
        origin=Origin(Path(config.model.source).name, front.model.digest, len(original)),
        data=data,
        seed=config.seed,
        device=(device := tuning.device.describe()),
        instruction_set=device.instructions,
        versions=dict(read_document(tuning.folder / "env.json", Environment).versions),
    )


def _name(source: str) -> str:
    """Return what data is called: of a path the last part, since the others are nobody's business."""
    return Path(source).name if Path(source).exists() else source
