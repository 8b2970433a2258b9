"""The `nas` command: one table from command to function; everything it does is ordinary Python API.

Engines are imported where they are needed: help, and whatever is refused, come at once.
"""

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console

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
from supernet.registry import FAMILIES, FORMATS
from supernet.train.world import World, launched_world

if TYPE_CHECKING:
    from nas.run.run import Run

Command = Callable[[argparse.Namespace, Console], Any]
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
            console = Console(stderr=arguments.json, highlight=False, quiet=not world.writes)
            with _joined(world), _writing(arguments, world):
                result = COMMANDS[arguments.command].function(arguments, console)
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


def _open(arguments: argparse.Namespace, console: Console) -> "Run":
    """The run that the arguments name, and torch on as many threads as it says."""
    configuration = configure(arguments)
    console.print(f"nas {arguments.command}: {arguments.output}", markup=False, soft_wrap=True)
    for note in configuration.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    import torch  # from here on it takes seconds

    from nas.run.run import open_run
    from supernet.families.family import resolutions

    run = open_run(arguments.output, configuration.config, arguments.line)
    torch.set_num_threads(run.config.train.threads)
    console.print(f"  {run.dataset}", markup=False, soft_wrap=True)
    if seen := resolutions(run.family):
        sizes = f"{seen[0]}" if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"
        console.print(f"  networks of {run.config.space.name} see them at {sizes} pixels", soft_wrap=True)
    return run


def _run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.cli.summary import print_summary
    from nas.stages.pipeline import run_all  # torch and all engines: only where they are needed

    run = _open(arguments, console)
    run_all(run, console)
    return print_summary(run, console)


def _stage(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.stages.pipeline import run_stage

    run = _open(arguments, console)
    run_stage(run, arguments.command, console)
    return {"stage": arguments.command, "folder": str(run.folder)}


def _profile(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.run.run import find_run
    from nas.stages.profile import run_validation

    found = _stage(arguments, console)
    if arguments.networks is not None:
        run_validation(find_run(arguments.output), arguments.networks, console)
    return found


def _fit(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.run.run import find_run
    from nas.stages.quality import print_quality

    found = _stage(arguments, console)
    return {**found, **print_quality(find_run(arguments.output), console)} if arguments.report else found


def _train(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    found = _stage(arguments, console)
    if arguments.ship is not None and launched_world().writes:
        from nas.export.shipping import ship
        from nas.run.run import find_run

        ship(find_run(arguments.output), arguments.ship, console)
    return found


def _compare(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.cli.compare import compare_profiles

    return compare_profiles(
        arguments.a, arguments.b, space=arguments.space, plot=arguments.plot, console=console
    )


def _import(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from hw_profiles.profiles.profile_json import save_profile
    from hw_profiles.profiles.published_tables import import_table

    profile = import_table(arguments.table)
    save_profile(profile, arguments.output)
    console.print(
        f"{arguments.output}: {len(profile.table)} units of {profile.device.name}; "
        f"search on it with --device recorded:{arguments.output}"
    )
    return {"profile": str(arguments.output), "units": len(profile.table)}


def _report(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    folder: Path = arguments.output
    if not any((folder / name).exists() for name in REPORTED) and not any(folder.glob("profiles/*.json")):
        raise TrilobitError(
            f"{folder}: nothing to report on{other_runs(folder)}; `nas run -o {folder}` makes something"
        )
    console.print(f"nas report: {folder}", markup=False, soft_wrap=True)
    from nas.report import write_report
    from nas.run.run import find_run

    path = write_report(find_run(folder).folder)
    console.print(f"report: {path}")
    return {"report": str(path)}


def _worker(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.evaluation.worker import run_worker

    return run_worker(arguments, console)


def _import_ofa(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.cli.import_ofa import run

    return run(arguments, console)


def _bench(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.serving.bench import run

    return run(arguments, console)


def _verify(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.verification.verification import run

    return run(arguments, console)


def _devices(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """What can be measured on here."""
    from nas.run.devices import available_devices

    found = []
    for device in available_devices():
        console.print(f"{device['name']:<36} {device['what']}", markup=False, soft_wrap=True)
        found.append(device)
    return found


def _spaces(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """What can be searched."""
    listed = sorted(names("trilobit.spaces", FAMILIES))
    console.print(f"{len(listed)} spaces:")
    from supernet.families.family import load_family

    found = []
    for name in listed:
        space = load_family(name, in_channels=3, classes=10).space()
        console.print(
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


def _design(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.design.command import run

    return run(arguments, console)


def _formats(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Number formats a layer can take."""
    found = []
    for name in sorted(names("trilobit.formats", FORMATS)):
        number_format = load("trilobit.formats", FORMATS, name)
        console.print(
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
