"""`nas bench`: what a file does in service, latency percentiles and throughput at given threads and batch
sizes. What competes for the machine is part of what a service sees, and is not taken out.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import load_average
from hw_profiles.runtimes.plugin import HOST
from hw_profiles.runtimes.runtime import Artifact, RejectedError, own_path
from nas.checks.check import TextInput
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.engine import FileEngine, file_engine, named_engine
from nas.checks.library_engine import LibraryEngine, library_engine
from nas.export.library.library import LIBRARY, OtherProcessorError, require_machine, stopped
from nas.export.manifests import AnyManifest, read_any
from nas.export.package import hash_of
from nas.export.seal import DECODER_FILE, MANIFEST, MODEL_FILE
from nas.export.tuned_manifest import TunedManifest
from nas.run.command_sections import BenchSection
from nas.run.frames import frame
from nas.run.reporting import QUIET, Reporter, Table, progress_bar
from nas.search.objectives import objective
from nas.search.units import show, show_alike
from nas.serving.decoders import DECODE_AT, PREFILL_OF
from nas.serving.given import read_example
from nas.serving.serving import PERCENTILES, Serving, serve_one

if TYPE_CHECKING:
    import pandas as pd

FLAT, FLAT_DEVICE = ".tflite", "litert"  # what runs such files here
BETWEEN = 95  # a percentile that tables of decoders leave out: they have 80 columns
FEWEST_CALLS = 100  # below which a 99th percentile is the slowest call
START_S = 60.0  # of one setting: to load the file, and for its first calls
THREAD_BYTES = 2**28  # of addresses that a thread reserves


@dataclass(frozen=True)
class Bench:
    """What a model does in service.

    Attributes:
        model: the file that was timed.
        settings: one for each number of threads and batch size.
        load: of the machine meanwhile, this process included; None where unknown.
    """

    model: Path
    settings: tuple[Serving, ...]
    load: float | None

    def to_frame(self) -> "pd.DataFrame":
        """Return a row for each setting: percentiles in seconds as `p50_s`, what is counted a second.

        Raises:
            TrilobitError: pandas is not installed.
        """
        return frame([_row(setting) for setting in self.settings])


def _row(setting: Serving) -> dict[str, Any]:
    row = {name: value for name, value in vars(setting).items() if name != "percentiles_s"}
    return row | {f"p{percent}_s": seconds for percent, seconds in setting.percentiles_s.items()}


def bench(
    model: Path,
    section: BenchSection | None = None,
    *,
    run_library: bool = False,
    reporter: Reporter = QUIET,
) -> Bench:
    """Time a model in service, single calls by the wall, and print a table.

    Args:
        model: an ONNX or `.tflite` file, a library or the folder of an exported network.
        section: threads, batch sizes and seconds; None takes the defaults.
        run_library: whether the machine code of a library may run.

    Raises:
        TrilobitError: no such file, it cannot be loaded here, or it has another batch size.
    """
    section = section or BenchSection()
    file = _file_in(model) if model.is_dir() else model
    if not file.is_file():
        raise TrilobitError(
            f"{file}: no such file; give an .onnx or .tflite file, a model.so or the folder of an exported "
            "network"
        )
    if (own := library_engine(section.device)) is not None and (beside := file.with_name(LIBRARY)).is_file():
        file = beside if model.is_dir() else file
    if file.suffix == ".so":
        settings = _serve_library(file, section, own, reporter, run_library=run_library)
    elif own is not None:
        settings = _serve_compiled(file, section, own, reporter)
    else:
        engine = _engine(model, section)
        file = own_path(engine.runtime, file)
        request = {
            "threads": section.threads,
            "batches": section.batch or None,
            "device": engine.request(),
            "inputs": _inputs_file(section),
            "prefill": section.prefill,
            "decode": section.decode,
            "made_up": _made_up(model) if not section.batch else [],
        }
        settings = _serve("nas.serving.serving:serve_file", file, request, section, reporter, engine.title)
    reporter.show(_table(settings))
    for line in _decoding_lines(settings):
        reporter.say(line)
    if (load := load_average()) is not None:
        reporter.say(f"load {load:.1f} meanwhile, this command included")
    if any(setting.calls < FEWEST_CALLS for setting in settings):
        reporter.say(f"fewer than {FEWEST_CALLS} calls: the 99th percentile is the slowest; more --seconds")
    return Bench(file, tuple(settings), load)


def _file_in(folder: Path) -> Path:
    """Return the file of an exported network: of a decoder that with a key-value cache."""
    decoder = folder / DECODER_FILE
    return decoder if decoder.is_file() else folder / MODEL_FILE


def _made_up(model: Path) -> list[dict[str, Any]]:
    """Return what examples of a tuned network are made up of; nothing where it says nothing of that."""
    if not (model / MANIFEST).is_file():
        return []
    manifest = read_any(model)
    answers = manifest.answers if isinstance(manifest, TunedManifest) else None
    return [asdict(stated) for stated in answers.inputs] if answers else []


def _inputs_file(section: BenchSection) -> str | None:
    """Return the path of what the model reads; None where that is random.

    Raises:
        TrilobitError: no such file, or a number of examples is asked for besides.
    """
    if not section.inputs:
        return None
    if section.batch:
        raise TrilobitError("--inputs and --batch: how many examples there are is what the inputs say")
    if not Path(section.inputs).is_file():
        raise TrilobitError(
            f"--inputs {section.inputs}: no such file; give an .npz with an array for each input"
        )
    return str(Path(section.inputs).absolute())


def _engine(model: Path, section: BenchSection) -> FileEngine:
    """Return what runs a file: what the section names, or what the folder was exported for.

    Raises:
        TrilobitError: nothing here does, or not with so many threads.
    """
    if section.device:
        engine = named_engine(section.device)
    elif (model / MANIFEST).is_file():
        engine = file_engine(read_any(model).device)
    else:
        engine = named_engine(FLAT_DEVICE if model.suffix == FLAT else HOST)
    if engine.runtime.describe().timeless:
        raise TrilobitError(
            f"{engine.choice.name} has no times: it runs files to count what they need (`nas verify`); "
            "--device litert times them on this machine, which says nothing of a microcontroller"
        )
    if "threads" not in engine.choice.kind.table and set(section.threads) != {1}:
        listed = ",".join(map(str, section.threads))
        raise TrilobitError(f"--threads {listed}: {engine.title} has no such option; leave it out")
    return engine


def _serve(
    task: str,
    model: Path,
    request: Mapping[str, Any],
    section: BenchSection,
    reporter: Reporter,
    title: str = "",
    made_of: Path | None = None,
) -> Sequence[Serving]:
    """Return what the model does, in a process of its own.

    Args:
        title: of what runs it.
        made_of: the file that people gave, where it is another.
    """
    settings = len(section.threads) * len(section.batch or (1,))
    expected_s = settings * section.seconds
    limits = Limits(
        wall_s=settings * START_S + 2 * expected_s,
        memory_bytes=Limits.memory_bytes + settings * max(section.threads) * THREAD_BYTES,
    )
    whole = {**request, "path": str(model.absolute()), "seconds": section.seconds}
    try:
        with progress_bar(reporter, "bench", 100) as update:
            document, _ = confined(
                task, whole, limits=limits, on_tick=lambda s: update(int(min(100, 100 * s / expected_s)), "")
            )
        return parse(tuple[Serving, ...], document)
    except OtherProcessorError:
        raise
    except (ConfinedError, MismatchError) as error:
        if model.suffix == ".so" and made_of is None:
            raise stopped(model, error) from None
        raise _not_run(made_of or model, title, error) from None


def _not_run(file: Path, title: str, error: Exception) -> TrilobitError:
    """Return what to say of a file that gave no times: an option may be wrong, not the file."""
    why = str(error)
    return TrilobitError(
        f"{file}: {why}" if why.startswith("--") else f"{file}: {title} cannot run it: {why}"
    )


def _serve_library(
    library: Path,
    section: BenchSection,
    engine: LibraryEngine | None,
    reporter: Reporter,
    *,
    run_library: bool,
) -> Sequence[Serving]:
    """Return what a library does in its only setting.

    Args:
        engine: what runs it; None for this machine.
    """
    if engine is None and section.device:
        raise TrilobitError(
            f"--device {section.device}: runs files, and {library.name} is a library; leave it out, or name "
            "a board that runs libraries, such as ssh:USER@HOST/tvm"
        )
    _require_one(section, library.name)
    manifest, board = _manifest_of(library), engine.board if engine is not None else None
    if board is None:
        require_machine(library)
    else:
        require_machine(library, board.machine, where=board.address)
    if not run_library:
        raise TrilobitError(
            f"{library}: machine code of whoever made it; with --run-library it is run, with your rights"
        )
    return _served_library(library, _library_request(manifest), section, engine, reporter)


def _serve_compiled(
    file: Path, section: BenchSection, engine: LibraryEngine, reporter: Reporter
) -> Sequence[Serving]:
    """Return what a file does as a library, compiled here for the device.

    Raises:
        TrilobitError: something in it has no kernel, or it leaves sizes open that no inputs bind.
    """
    from nas.export.library.of_file import compile_file  # the compiler: only where it is needed

    _require_one(section, f"{file.name} as a library")
    if file.suffix == FLAT:
        raise TrilobitError(f"{file}: libraries are compiled from ONNX files; give that")
    path = _inputs_file(section)
    try:
        example = None if path is None else read_example(Path(path))
    except ValueError as error:
        raise TrilobitError(str(error)) from None
    built = compile_file(file, engine.device.runtime, example, reporter=reporter)
    request = {"signature": [asdict(info) for info in built.signature]}
    with tempfile.TemporaryDirectory(prefix="trilobit-") as folder:
        library = Path(folder) / LIBRARY
        library.write_bytes(built.code)
        return _served_library(library, request, section, engine, reporter, made_of=file)


def _require_one(section: BenchSection, what: str) -> None:
    """Refuse other settings than those of a library.

    Raises:
        TrilobitError: there are.
    """
    for name, values in (("--threads", section.threads), ("--batch", section.batch or (1,))):
        if set(values) != {1}:
            raise TrilobitError(
                f"{name} {','.join(map(str, values))}: {what} takes one example at a time on one thread; "
                f"give {name} 1, or the {MODEL_FILE} beside it"
            )


def _served_library(
    library: Path,
    request: Mapping[str, Any],
    section: BenchSection,
    engine: LibraryEngine | None,
    reporter: Reporter,
    *,
    made_of: Path | None = None,
) -> Sequence[Serving]:
    inputs = _inputs_file(section)
    if engine is not None and engine.board is not None:
        with reporter.status(f"bench on {engine.board.address}"):
            return _served_there(library.read_bytes(), made_of or library, inputs, section, engine)
    whole, task = {**request, "inputs": inputs}, "nas.serving.serving:serve_library"
    title = engine.choice.kind.title if engine is not None else ""
    return _serve(task, library, whole, section, reporter, title, made_of=made_of)


def _served_there(
    code: bytes, shown: Path, inputs: str | None, section: BenchSection, engine: LibraryEngine
) -> Sequence[Serving]:
    """Return what a library does on a board; nothing of it is run in this process."""
    try:
        library = engine.device.runtime.compile(Artifact(code, "library"))
        return serve_one(library, None if inputs is None else Path(inputs), seconds=section.seconds)
    except (RejectedError, ValueError) as error:
        raise _not_run(shown, engine.choice.kind.title, error) from None


def _library_request(manifest: AnyManifest) -> dict[str, Any]:
    """Return what a library reads and gives, as its manifest says."""
    if not isinstance(manifest, TunedManifest):
        reads = manifest.input
        shape = reads.file_shape if isinstance(reads, TextInput) else reads.shape
        return {"shape": shape, "answer": reads.answer_shape(1, len(manifest.classes))[1:]}
    if manifest.library is None:
        raise TrilobitError(f"the {MANIFEST} beside the library says nothing of it; export it again")
    return {"signature": [asdict(info) for info in manifest.library.signature]}


def _manifest_of(library: Path) -> AnyManifest:
    """Return what says what a library reads, and that it is the one that was exported."""
    path = library.with_name(MANIFEST)
    if not path.is_file():
        raise TrilobitError(
            f"{library}: no {MANIFEST} beside it, which says what it reads; keep its folder whole"
        )
    manifest = read_any(path.parent)
    record = manifest.files.get(library.name)
    if record is None or hash_of(library) != record.sha256:
        raise TrilobitError(
            f"{library}: not the file that its {MANIFEST} has the hash of; fetch its folder again"
        )
    return manifest


def _table(settings: Sequence[Serving]) -> Table:
    decodes = any(setting.scenario for setting in settings)
    counted = " or ".join(dict.fromkeys(setting.counted for setting in settings))
    percentiles = tuple(p for p in PERCENTILES if p != BETWEEN or not decodes)
    columns = (
        *("threads", "batch", *(("scenario",) if decodes else ()), "calls"),
        *(f"p{p}" for p in percentiles),
        f"{counted}/s",
    )
    by_percentile = (
        show_alike(objective("latency"), [s.percentiles_s[str(p)] for s in settings]) for p in percentiles
    )
    times = zip(*by_percentile, strict=True)
    return Table(columns, list(map(_cells, settings, times)), numbers=len(columns))


def _cells(setting: Serving, times: Sequence[str]) -> tuple[str, ...]:
    scenario = (setting.scenario,) if setting.scenario else ()
    counts = (str(setting.threads), str(setting.batch), *scenario, f"{setting.calls:,}")
    return (*counts, *times, f"{setting.rate_per_s:,.0f}")


def _decoding_lines(settings: Sequence[Serving]) -> list[str]:
    """Return what a user of a decoder waits for, a line for each number of threads and batch size."""
    lines, latency = [], objective("latency")
    for threads, batch in dict.fromkeys((s.threads, s.batch) for s in settings if s.scenario):
        own = {s.scenario: s for s in settings if (s.threads, s.batch) == (threads, batch)}
        prefill = next((s for name, s in own.items() if name.startswith(PREFILL_OF)), None)
        decode = next((s for name, s in own.items() if name.startswith(DECODE_AT)), None)
        parts = []
        if prefill is not None:
            parts.append(
                f"{show(latency, prefill.percentiles_s['50'])} to the first token ({prefill.scenario})"
            )
        if decode is not None:
            each = show(latency, decode.percentiles_s["50"])
            parts.append(f"{each} per token ({decode.scenario}): {decode.rate_per_s:,.0f} tokens/s")
        lines.append(f"{threads} thread(s), batch {batch}: {', then '.join(parts)}")
    return lines
