"""The `nas` command: one dict from command to function; everything it does is ordinary Python API."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json
from hw_profiles.registry import BACKENDS, load, names
from nas.config import RunConfig, read_config
from nas.objectives import OBJECTIVES
from nas.run import STAGES, Run, find_run, open_run
from nas.targets import show
from supernet.family import FAMILIES, FORMATS, load_family, load_format

DEFAULT_FOLDER = Path("runs/default")
LIMITS = {"max_latency": "latency", "max_size": "size", "max_macs": "macs", "min_accuracy": "accuracy"}
Command = Callable[[argparse.Namespace, Console], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input or a broken file, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    console = Console(stderr=arguments.json, highlight=False)
    try:
        result = _COMMANDS[arguments.command][0](arguments, console)
    except (TrilobitError, OSError) as error:
        print(f"nas: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nas: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    if arguments.json:
        print(json.dumps(result, indent=1))
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}{error.strerror.lower()}; nothing half-written was left: make room or "
            "choose another folder with -o"
        )
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nas",
        description="Find the networks that trade accuracy against measured latency and size best.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, description) in _COMMANDS.items():
        command = commands.add_parser(name, help=description, description=description)
        command.add_argument(
            "--json", action="store_true", help="print the result as JSON on standard output"
        )
        if name in ("run", *STAGES):
            _add_run_options(command)
    return parser


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", type=Path, help="a TOML file with the sections of run.toml")
    command.add_argument(
        "-o", "--output", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="the run folder"
    )
    command.add_argument("--data", metavar="SOURCE", help="digits, imagefolder:PATH or cifar10:PATH")
    command.add_argument("--device", metavar="NAME", help="see `nas devices`")
    command.add_argument("--threads", type=int, metavar="N", help="threads of one inference")
    command.add_argument("--space", metavar="NAME", help="see `nas spaces`")
    command.add_argument("--seed", type=int, metavar="N")
    command.add_argument("--objective", metavar="A,B", help=f"of {','.join(OBJECTIVES)}")
    command.add_argument(
        "--max-latency", metavar="TIME", help="for example 0.3ms, or 60%% of the largest network's"
    )
    command.add_argument("--max-size", metavar="BYTES", help="for example 200KB, or 60%%")
    command.add_argument("--max-macs", metavar="N", help="for example 3M, or 60%%")
    command.add_argument("--min-accuracy", metavar="SHARE", help="for example 95%%")
    command.add_argument("--count", type=int, metavar="N", help="networks to export")


def _configure(arguments: argparse.Namespace) -> RunConfig:
    """The configuration file, else the one already in the run folder, else the defaults; options on top."""
    existing = arguments.output / "run.toml"
    if arguments.config is not None:
        config = read_config(arguments.config)
    else:
        config = read_config(existing) if existing.exists() else RunConfig()
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for option, (section, key) in _OPTIONS.items():
        if option in given:
            config = replace(config, **{section: replace(getattr(config, section), **{key: given[option]})})
    if "objective" in given:
        wanted = tuple(name.strip() for name in given["objective"].split(","))
        config = replace(config, search=replace(config.search, objectives=wanted))
    if "seed" in given:
        config = replace(config, seed=given["seed"])
    limits = {LIMITS[option]: given[option] for option in LIMITS if option in given}
    return replace(config, constraints={**config.constraints, **limits})


_OPTIONS: Mapping[str, tuple[str, str]] = {
    "data": ("data", "source"),
    "device": ("device", "name"),
    "threads": ("device", "threads"),
    "space": ("space", "name"),
    "count": ("export", "count"),
}


def _open(arguments: argparse.Namespace) -> Run:
    """The run that the arguments name, and torch on as many threads as it says."""
    run = open_run(arguments.output, _configure(arguments))
    torch.set_num_threads(run.config.train.threads)
    return run


def _run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.pipeline import run_all  # torch and all engines: only where they are needed

    run = _open(arguments)
    run_all(run, console)
    return _summary(run, console)


def _stage(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.pipeline import run_stage

    run = _open(arguments)
    run_stage(run, arguments.command, console)
    return {"stage": arguments.command, "folder": str(run.folder)}


def _report(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.report import write_report

    path = write_report(find_run(arguments.output).folder)
    console.print(f"report: {path}")
    return {"report": str(path)}


def _summary(run: Run, console: Console) -> dict[str, Any]:
    """The exported networks, as a table and as data."""
    manifests = [read_json(path, "export/1") for path in sorted(run.export_path.glob("*/manifest.json"))]
    manifests.sort(key=lambda manifest: manifest["latency"]["median_s"])
    table = Table()
    table.add_column("network", no_wrap=True, min_width=12)  # whole: it names the folder
    for title in ("test accuracy", "latency", "IQR", "of largest", "size", "int8"):
        table.add_column(title, justify="right")
    rows = []
    for manifest in manifests:
        accuracy, latency = manifest["accuracy"], manifest["latency"]
        size = sum(file["bytes"] for file in manifest["files"].values())
        policy = list(manifest["policy"].values())
        table.add_row(
            manifest["id"],
            show(OBJECTIVES["accuracy"], accuracy["test"]),
            show(OBJECTIVES["latency"], latency["median_s"]),
            show(OBJECTIVES["latency"], latency["iqr_s"]),
            f"{latency['ratio_to_reference']:.2f} x",
            show(OBJECTIVES["size"], size),
            f"{sum(fmt != 'fp32' for fmt in policy)} of {len(policy)}",
        )
        rows.append(
            {
                "id": manifest["id"],
                "test_accuracy": accuracy["test"],
                "latency_s": latency["median_s"],
                "size_bytes": size,
            }
        )
    console.print(table)
    console.print(f"models: {run.export_path}{os.sep}ID{os.sep}model.onnx    report: {run.report_path}")
    return {"folder": str(run.folder), "exported": rows, "report": str(run.report_path)}


def _devices(arguments: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """What can be measured on here."""
    found = []
    for name in sorted(names("trilobit.devices", BACKENDS)):
        if name == "recorded":
            console.print("recorded:PROFILE.json  replays a saved profile")
            found.append({"name": "recorded:PROFILE.json"})
            continue
        info = load("trilobit.devices", BACKENDS, name)().describe()
        console.print(f"{name:<22} {info.engine} {info.engine_version}, {info.provider}, on {info.cpu}")
        found.append({"name": name, **info.to_json()})
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
    "profile": (_stage, "measure the units of the space on the device"),
    "train": (_stage, "train the supernet"),
    "sample": (_stage, "evaluate sampled networks on the supernet"),
    "fit": (_stage, "fit the accuracy predictor and say how good it is"),
    "search": (_stage, "search, measure the finalists, write front.json"),
    "export": (_stage, "export networks of the front as ONNX"),
    "report": (_report, "write report.html"),
    "devices": (_devices, "list what can be measured on"),
    "spaces": (_spaces, "list what can be searched"),
    "formats": (_formats, "list number formats"),
}

if __name__ == "__main__":
    sys.exit(main())
