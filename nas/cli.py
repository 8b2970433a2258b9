"""The `nas` command: one dict from command to function; everything it does is ordinary Python API."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch
from rich.console import Console

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import names
from nas import import_ofa
from nas.devices import available_devices
from nas.failures import in_one_line, is_expected
from nas.interruption import interruptible
from nas.lock import locked
from nas.options import add_options, configure
from nas.redaction import printable, redacted
from nas.run import Run, find_run, open_run
from supernet.family import FAMILIES, FORMATS, load_family, load_format
from supernet.train.parallel import World, current_world, joined_world, launched_world

Command = Callable[[argparse.Namespace, Console], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input or a broken file, 130 when interrupted."""
    sys.excepthook = _tell
    words = list(sys.argv[1:] if argv is None else argv)
    if " ".join(words[:2]) in _COMMANDS:
        words[:2] = [" ".join(words[:2])]
    arguments = _parser().parse_args(words)
    world = World()
    try:
        world = _launched(arguments.command)
        console = Console(stderr=arguments.json, highlight=False, quiet=not world.writes)
        with joined_world(), interruptible(), _writing(arguments, world):
            result = _COMMANDS[arguments.command][0](arguments, console)
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


def _writing(arguments: argparse.Namespace, world: World) -> AbstractContextManager[None]:
    """Hold the run folder that a command writes to; of several processes of one training, the first does."""
    writes = arguments.command in _WRITERS and world.writes
    return locked(arguments.output) if writes else nullcontext()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nas",
        description="Find the networks that trade accuracy against measured latency and size best.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, description) in _COMMANDS.items():
        command = commands.add_parser(name, help=description, description=description)
        add_options(name, command)
    return parser


def _open(arguments: argparse.Namespace, console: Console) -> Run:
    """The run that the arguments name, and torch on as many threads as it says."""
    config, note = configure(arguments)
    run = open_run(arguments.output, config)
    if note:
        console.print(note)
    torch.set_num_threads(run.config.train.threads)
    return run


def _run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.pipeline import run_all  # torch and all engines: only where they are needed
    from nas.summary import print_summary

    run = _open(arguments, console)
    run_all(run, console)
    return print_summary(run, console)


def _stage(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.pipeline import run_stage

    run = _open(arguments, console)
    run_stage(run, arguments.command, console)
    return {"stage": arguments.command, "folder": str(run.folder)}


def _profile(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.stages.profile import check_validation, run_validation

    if arguments.validate is not None:
        check_validation(arguments.validate)
    found = _stage(arguments, console)
    if arguments.validate is not None:
        run_validation(_open(arguments, console), arguments.validate, console)
    return found


def _fit(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.quality import print_quality

    found = _stage(arguments, console)
    return {**found, **print_quality(_open(arguments, console), console)} if arguments.report else found


def _train(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    found = _stage(arguments, console)
    if arguments.ship is not None and current_world().writes:
        from nas.shipping import ship

        ship(find_run(arguments.output), arguments.ship, console)
    return found


def _compare(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.compare import compare_profiles

    return compare_profiles(
        arguments.a, arguments.b, space=arguments.space, plot=arguments.plot, console=console
    )


def _import(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from hw_profiles.importers import import_table
    from hw_profiles.profile_file import save_profile

    profile = import_table(arguments.table)
    save_profile(profile, arguments.output)
    console.print(
        f"{arguments.output}: {len(profile.table)} units of {profile.device.name}; "
        f"search on it with --device recorded:{arguments.output}"
    )
    return {"profile": str(arguments.output), "units": len(profile.table)}


def _report(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.report import write_report

    path = write_report(find_run(arguments.output).folder)
    console.print(f"report: {path}")
    return {"report": str(path)}


def _worker(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.worker import run_worker

    return run_worker(arguments, console)


def _bench(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.bench import run

    return run(arguments, console)


def _verify(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.verification import run

    return run(arguments, console)


def _devices(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """What can be measured on here."""
    found = [*available_devices()]
    for device in found:
        console.print(f"{device['name']:<36} {device['what']}")
    return found


def _spaces(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """What can be searched."""
    found = []
    for name in sorted(names("trilobit.spaces", FAMILIES)):
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
        number_format = load_format(name)
        console.print(
            f"{name:<8} {number_format.bits:>2} bits per weight, "
            f"stored as ONNX {number_format.onnx_weight_type}"
        )
        found.append({"name": name, "bits": number_format.bits, "onnx": number_format.onnx_weight_type})
    return found


_COMMANDS: Mapping[str, tuple[Command, str]] = {
    "run": (_run, "all stages: profile the device, train, sample, fit, search, export, report"),
    "profile": (_profile, "measure the units of the space on the device"),
    "profile compare": (_compare, "two profiles side by side"),
    "profile import": (_import, "turn a published table into a profile"),
    "train": (_train, "train the supernet"),
    "sample": (_stage, "evaluate sampled networks on the supernet"),
    "fit": (_fit, "fit the accuracy predictor and say how good it is"),
    "search": (_stage, "search, measure the finalists, write front.json"),
    "export": (_stage, "export networks of the front as ONNX"),
    "report": (_report, "write report.html"),
    "worker": (_worker, "evaluate for a run that another machine leads"),
    "import-ofa": (import_ofa.run, "turn a published once-for-all checkpoint into a supernet"),
    "bench": (_bench, "latency percentiles and throughput of an exported file"),
    "verify": (_verify, "check exported networks again, here, and say what moved"),
    "devices": (_devices, "list what can be measured on"),
    "spaces": (_spaces, "list what can be searched"),
    "spaces design": (_design, "design a space for a device: its block types and widths"),
    "formats": (_formats, "list number formats"),
}

# commands that change a run folder: one of them at a time
_WRITERS = ("run", "profile", "train", "sample", "fit", "search", "export", "spaces design")

if __name__ == "__main__":
    sys.exit(main())
