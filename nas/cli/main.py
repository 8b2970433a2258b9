"""The `nas` command: one table from command to function; everything it does is ordinary Python API.

Engines are imported where they are needed: help, and whatever is refused, come at once.
"""

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import TrilobitError
from hw_profiles.redaction import printable, redacted
from hw_profiles.registry import load, names
from nas.cli.command_line import parse_words
from nas.cli.configuration import configure, other_runs
from nas.cli.failures import in_one_line, is_expected
from nas.cli.flags import CONFIGURED
from nas.cli.interruption import interruptible
from nas.run.lock import locked
from nas.run.recording import taken_back_if_refused
from nas.run.reporting import QUIET, Reporter
from supernet.registry import FAMILIES, FORMATS
from supernet.train.world import World, launched_world

if TYPE_CHECKING:
    from nas.run.run import Run

Command = Callable[[argparse.Namespace, Reporter], Any]
# these change a run folder: one of them at a time
WRITERS = (*CONFIGURED, "spaces design")
REPORTED = (
    "samples.json",
    "quality.json",
    "front.json",
    "export",
)  # any of them makes a report, or a profile


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input or a broken file, 130 when interrupted."""
    sys.excepthook = _tell
    world = World()
    try:
        with interruptible():
            arguments = parse_words(sys.argv[1:] if argv is None else argv, TEXTS)
            if isinstance(arguments, str):  # help or the version
                print(arguments)
                return 0
            world = _launched(arguments.command)
            reporter = _reporter(arguments) if world.writes else QUIET
            with _joined(world), _writing(arguments, world):
                result = COMMANDS[arguments.command].function(arguments, reporter)
    except KeyboardInterrupt:
        if world.writes:
            print("nas: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_expected(error):
            raise
        which = f" (process {world.rank} of {world.size})" if world.size > 1 else ""
        print(f"nas{which}: {printable(redacted(in_one_line(error)))}", file=sys.stderr)
        return 2
    if arguments.json and world.writes:
        print(json.dumps(result, indent=1))
    return 0


def _reporter(arguments: argparse.Namespace) -> Reporter:
    """Return what speaks to people: on standard error where standard output carries JSON."""
    from rich.console import Console

    from nas.cli.console import ConsoleReporter

    return ConsoleReporter(Console(stderr=arguments.json, highlight=False))


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug as Python does, but for the passwords that its message may quote."""
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


def _launched(command: str) -> World:
    """The processes that torchrun started, of which only training can use several."""
    world = launched_world()
    if world.size > 1 and command != "train":
        raise TrilobitError(
            f"`nas {command}` runs in one process, torchrun started {world.size}; only `nas train` uses "
            "several, and `nas run` goes on from what it leaves"
        )
    return world


def _joined(world: World) -> contextlib.AbstractContextManager[Any]:
    """The other processes, met where there are any."""
    if world.size == 1:
        return contextlib.nullcontext()
    from supernet.train.parallel import joined_world

    return joined_world()


@contextlib.contextmanager
def _writing(arguments: argparse.Namespace, world: World) -> Iterator[None]:
    """Hold the run folder that a command writes to, and leave it as it was where the command is refused; of
    several processes of one training, the first does.
    """
    if arguments.command not in WRITERS or not world.writes:
        yield
        return
    with locked(arguments.output), taken_back_if_refused(arguments.output):
        yield


def _open(arguments: argparse.Namespace, reporter: Reporter) -> "Run":
    """The run that the arguments name, and torch on as many threads as it says."""
    configuration = configure(arguments)
    reporter.say(f"nas {arguments.command}: {arguments.output}")
    for note in configuration.notes:
        reporter.say(f"  {note}")
    import torch  # from here on it takes seconds

    from nas.run.run import open_run
    from supernet.families.family import resolutions

    run = open_run(arguments.output, configuration.config, arguments.line)
    torch.set_num_threads(run.config.train.threads)
    reporter.say(f"  {run.dataset}")
    if seen := resolutions(run.family):
        sizes = f"{seen[0]}" if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"
        reporter.say(f"  networks of {run.config.space.name} see them at {sizes} pixels")
    return run


def _run(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.summary import print_summary
    from nas.stages.pipeline import run_all  # torch and all engines: only where they are needed

    run = _open(arguments, reporter)
    run_all(run, reporter)
    return print_summary(run, reporter)


def _stage(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.stages.pipeline import run_stage

    run = _open(arguments, reporter)
    run_stage(run, arguments.command, reporter)
    return {"stage": arguments.command, "folder": str(run.folder)}


def _profile(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.run.run import find_run
    from nas.stages.profile import run_validation

    found = _stage(arguments, reporter)
    if arguments.networks is not None:
        run_validation(find_run(arguments.output), arguments.networks, reporter)
    return found


def _fit(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.run.run import find_run
    from nas.stages.quality import print_quality

    found = _stage(arguments, reporter)
    return {**found, **print_quality(find_run(arguments.output), reporter)} if arguments.report else found


def _train(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    found = _stage(arguments, reporter)
    if arguments.ship is not None and launched_world().writes:
        from nas.export.publish import publish
        from nas.run.run import find_run

        publish(find_run(arguments.output), arguments.ship, reporter)
    return found


def _compare(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.compare import compare_profiles

    return compare_profiles(
        arguments.a, arguments.b, space=arguments.space, plot=arguments.plot, reporter=reporter
    )


def _import(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from hw_profiles.profiles.profile_json import save_profile
    from hw_profiles.profiles.published_tables import import_table

    profile = import_table(arguments.table)
    save_profile(profile, arguments.output)
    reporter.say(
        f"{arguments.output}: {len(profile.table)} units of {profile.device.name}; "
        f"search on it with --device recorded:{arguments.output}"
    )
    return {"profile": str(arguments.output), "units": len(profile.table)}


def _report(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    folder: Path = arguments.output
    if not any((folder / name).exists() for name in REPORTED) and not any(folder.glob("profiles/*.json")):
        raise TrilobitError(
            f"{folder}: nothing to report on{other_runs(folder)}; `nas run -o {folder}` makes something"
        )
    reporter.say(f"nas report: {folder}")
    from nas.report import write_report
    from nas.run.run import find_run

    path = write_report(find_run(folder).folder)
    reporter.say(f"report: {path}")
    return {"report": str(path)}


def _worker(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.evaluation.worker import run_worker, worker_status

    if arguments.status:
        return worker_status(arguments.output, storage_url=arguments.storage, reporter=reporter)
    return run_worker(
        arguments.output,
        storage_url=arguments.storage,
        data=arguments.data,
        measure=arguments.measure,
        idle=arguments.idle,
        reporter=reporter,
    )


def _import_ofa(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.cli.import_ofa import import_checkpoint

    return import_checkpoint(
        arguments.file,
        space=arguments.space,
        formats=_listed(arguments.formats) or None,
        output=arguments.output,
        reporter=reporter,
    )


def _bench(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.run.command_sections import BenchSection
    from nas.serving.bench import bench

    settings = tuple(arguments.threads), tuple(arguments.batch or ())
    section = BenchSection(*settings, arguments.seconds, arguments.device or "")
    result = bench(arguments.model, section, run_library=arguments.run_library, reporter=reporter)
    return {"model": str(result.model), "settings": [asdict(setting) for setting in result.settings]}


def _verify(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.verification.verification import verify_networks

    verification = verify_networks(
        arguments.folder,
        data=arguments.data,
        latency=not arguments.no_latency,
        run_library=arguments.run_library,
        key=arguments.verify_key,
        reporter=reporter,
    )
    verification.require()
    return {name: [asdict(one) for one in found] for name, found in verification.findings.items()}


def _devices(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """What can be measured on here."""
    from nas.run.devices import available_devices

    found = []
    for device in available_devices():
        reporter.say(f"{device['name']:<36} {device['what']}")
        found.append(device)
    return found


def _spaces(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """What can be searched."""
    listed = sorted(names("trilobit.spaces", FAMILIES))
    reporter.say(f"{len(listed)} spaces:")
    from supernet.families.family import load_family

    found = []
    for name in listed:
        space = load_family(name, in_channels=3, classes=10).space()
        reporter.say(
            f"{name:<16} {space.size:.3g} networks, {len(space.choices)} choices, fingerprint "
            f"{space.fingerprint}"
        )
        found.append(
            {
                "name": name,
                "size": space.size,
                "choices": len(space.choices),
                "fingerprint": space.fingerprint,
            }
        )
    return found


def _design(arguments: argparse.Namespace, reporter: Reporter) -> dict[str, Any]:
    from nas.design.command import DesignRequest, design_space, parse_limits
    from nas.design.published import design_on_table
    from nas.run.practice import Effort, Practice

    limits, effort = parse_limits(arguments.max_latency), Effort(arguments.evaluations, arguments.seed)
    if arguments.table is not None:
        return design_on_table(
            arguments.table,
            arguments.output,
            limits=limits,
            spaces=arguments.spaces,
            effort=effort,
            reporter=reporter,
        )
    practice = Practice(steps=arguments.steps, samples=arguments.samples, images=arguments.images)
    request = DesignRequest(
        arguments.output,
        data=arguments.data,
        device=arguments.device,
        teacher=arguments.teacher,
        types=_listed(arguments.types),
        limits=limits,
        title=arguments.title,
        practice=practice,
        effort=effort,
    )
    return design_space(request, reporter)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _formats(arguments: argparse.Namespace, reporter: Reporter) -> list[dict[str, Any]]:
    """Number formats a layer can take."""
    found = []
    for name in sorted(names("trilobit.formats", FORMATS)):
        number_format = load("trilobit.formats", FORMATS, name)
        reporter.say(
            f"{name:<8} {number_format.bits:>2} bits per weight, "
            f"stored as ONNX {number_format.onnx_weight_type}"
        )
        found.append({"name": name, "bits": number_format.bits, "onnx": number_format.onnx_weight_type})
    return found


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        function: what it does.
        text: what it does, in words.
    """

    function: Command
    text: str


COMMANDS: Mapping[str, Verb] = {
    "run": Verb(_run, "all stages: profile the device, train, sample, fit, search, export, report"),
    "profile": Verb(_profile, "measure the units of the space on the device"),
    "train": Verb(_train, "train the supernet"),
    "sample": Verb(_stage, "evaluate sampled networks on the supernet"),
    "fit": Verb(_fit, "fit the accuracy predictor and say how good it is"),
    "search": Verb(_stage, "search, measure the finalists, write front.json"),
    "export": Verb(_stage, "export networks of the front as ONNX"),
    "report": Verb(_report, "write report.html"),
    "bench": Verb(_bench, "latency percentiles and throughput of an exported file"),
    "verify": Verb(_verify, "check exported networks again, here, and say what moved"),
    "worker": Verb(_worker, "evaluate for a run that another machine leads"),
    "devices": Verb(_devices, "list what can be measured on"),
    "spaces": Verb(_spaces, "list what can be searched"),
    "formats": Verb(_formats, "list number formats"),
    "spaces design": Verb(_design, "design a space for a device: its block types and widths"),
    "profile compare": Verb(_compare, "two profiles side by side"),
    "profile import": Verb(_import, "turn a published table into a profile"),
    "import-ofa": Verb(_import_ofa, "turn a published once-for-all checkpoint into a supernet"),
}
TEXTS: Mapping[str, str] = {name: verb.text for name, verb in COMMANDS.items()}

if __name__ == "__main__":
    sys.exit(main())
