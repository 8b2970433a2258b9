"""The `nas` command: one dict from command to function; everything it does is ordinary Python API."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json
from hw_profiles.registry import names
from nas import import_ofa
from nas.config import RunConfig, parse_config, read_document
from nas.defaults import with_defaults
from nas.devices import available_devices
from nas.objectives import OBJECTIVES
from nas.run import STAGES, Run, find_run, open_run
from nas.targets import show
from supernet.family import FAMILIES, FORMATS, load_family, load_format
from supernet.train.parallel import World, current_world, joined_world, launched_world

DEFAULT_FOLDER = Path("runs/default")
LIMITS = {
    "max_latency": "latency",
    "max_size": "size",
    "max_memory": "memory",
    "max_macs": "macs",
    "min_accuracy": "accuracy",
}
Command = Callable[[argparse.Namespace, Console], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input or a broken file, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if " ".join(words[:2]) in _COMMANDS:
        words[:2] = [" ".join(words[:2])]
    arguments = _parser().parse_args(words)
    world = World()
    try:
        world = _launched(arguments.command)
        console = Console(stderr=arguments.json, highlight=False, quiet=not world.writes)
        with joined_world():
            result = _COMMANDS[arguments.command][0](arguments, console)
    except (TrilobitError, OSError) as error:
        which = f" (process {world.rank} of {world.size})" if world.size > 1 else ""
        print(f"nas{which}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if world.writes:
            print("nas: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    if arguments.json and world.writes:
        print(json.dumps(result, indent=1))
    return 0


def _launched(command: str) -> World:
    """The processes that torchrun started, of which only training can use several."""
    world = launched_world()
    if world.size > 1 and command != "train":
        raise TrilobitError(
            f"`nas {command}` runs in one process, torchrun started {world.size}; only `nas train` uses "
            "several, and `nas run` goes on from what it leaves"
        )
    return world


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
        if name in ("run", "profile"):
            _add_profile_options(command)
        if name in ("run", "train"):
            _add_train_options(command)
        if name in ("run", "export"):
            _add_export_options(command)
        if name in _ADD_OPTIONS:
            _ADD_OPTIONS[name](command)
    return parser


def _add_profile_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--provider", metavar="NAME", help="execution provider of ONNX Runtime")
    add("--batch", type=int, metavar="N", help="images of one inference")
    add("--target", metavar="NAME", help="what TVM compiles for: host, or for example "
        "aarch64-linux-gnu:cortex-a76")  # fmt: skip
    add("--rpc", nargs=2, metavar=("tracker", "HOST:PORT"), help="measure on boards, through TVM's tracker")
    add("--key", metavar="KEY", help="which of the tracker's boards")
    add("--database", metavar="DIR", help="folder of TVM's tuned units (default: the user's cache)")
    add("--budget", metavar="TIME", help="stop measuring after so long, for example 2m; predict the rest")
    add("--share", metavar="SHARE", help="measure this share of the units, such as 20%%; predict the rest")
    add("--from", dest="sources", action="append", metavar="PROFILE", help="a profile of another device to "
        "predict from; may be repeated")  # fmt: skip


def _add_train_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--init", metavar="CHECKPOINT", help="weights to start from: a file, shipped:NAME, or none")
    add("--epochs", type=int, metavar="N", help="passes over the training images; 0 uses the weights of "
        "--init as they are")  # fmt: skip


def _add_export_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--finetune", type=int, metavar="EPOCHS", help="train each network on, in its formats, before it is "
        "exported; kept where that helps")  # fmt: skip


def _add_validate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--validate", type=int, metavar="N", help="then measure N new random networks of each kind"
    )


def _add_ship(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ship", type=Path, metavar="FILE", help="then write the weights in their compact "
        "form, and their model card beside them")  # fmt: skip


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=Path, metavar="A", help="a profile")
    command.add_argument("b", type=Path, metavar="B", help="another")
    command.add_argument("--space", metavar="NAME", help="also compare how they rank networks of this space")
    command.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, .html or .svg")


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("table", type=Path, help="OFA or ProxylessNAS table (.json), BitFusion (.npz)")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="PROFILE.json")


_ADD_OPTIONS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "profile": _add_validate,
    "train": _add_ship,
    "profile compare": _add_compare,
    "profile import": _add_import,
    "import-ofa": import_ofa.add_options,
}


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", type=Path, help="a TOML file with the sections of run.toml")
    command.add_argument(
        "-o", "--output", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="the run folder"
    )
    command.add_argument("--data", metavar="SOURCE", help="digits, imagefolder:PATH or cifar10:PATH")
    command.add_argument("--device", metavar="NAME", help="see `nas devices`")
    command.add_argument("--threads", type=int, metavar="N", help="threads of one inference")
    command.add_argument("--space", metavar="NAME", help="see `nas spaces`")
    command.add_argument("--formats", metavar="A,B", help="number formats to choose from, see `nas formats`")
    command.add_argument("--seed", type=int, metavar="N")
    command.add_argument("--objective", metavar="A,B", help=f"of {','.join(OBJECTIVES)}")
    command.add_argument(
        "--max-latency", metavar="TIME", help="for example 0.3ms, or 60%% of the largest network's"
    )
    command.add_argument("--max-size", metavar="BYTES", help="for example 200KB, or 60%%")
    command.add_argument(
        "--max-memory", metavar="BYTES", help="tensors alive at once, for example 32KB, or 60%%"
    )
    command.add_argument("--max-macs", metavar="N", help="for example 3M, or 60%%")
    command.add_argument("--min-accuracy", metavar="SHARE", help="for example 95%%")
    command.add_argument("--count", type=int, metavar="N", help="networks to export")


def _configure(arguments: argparse.Namespace) -> tuple[RunConfig, str]:
    """The configuration file, else the one already in the run folder, else the defaults; options on top. And
    a line on what was filled in because of the data or the checkpoint to start from.
    """
    existing = arguments.output / "run.toml"
    path = arguments.config or (existing if existing.exists() else None)
    document = read_document(path) if path is not None else {}
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for section, values in _sections(given).items():
        found = document.get(section, {})
        document[section] = {**found, **values} if isinstance(found, Mapping) else found
    if "seed" in given:
        document["seed"] = given["seed"]
    filled, note = with_defaults(document)
    return parse_config(filled, origin=str(path or "options")), note


def _sections(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options as sections of a configuration."""
    sections: dict[str, dict[str, Any]] = {}

    def put(section: str, key: str, value: Any) -> None:
        sections.setdefault(section, {})[key] = value

    for option, (section, key) in _OPTIONS.items():
        if option in given:
            put(section, key, _PARSED.get(option, lambda text: text)(given[option]))
    if "rpc" in given:
        kind, tracker = given["rpc"]
        if kind != "tracker":
            raise TrilobitError(f"--rpc {kind!r}: only 'tracker' is known; write --rpc tracker HOST:PORT")
        put("device", "tracker", tracker)
        put("device", "name", given.get("device", "tvm"))
    for option, name in LIMITS.items():
        if option in given:
            put("constraints", name, given[option])
    return sections


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _share(text: str) -> float:
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise TrilobitError(f"--share {text!r} is not a share; write for example 20%") from None


_OPTIONS: Mapping[str, tuple[str, str]] = {
    "data": ("data", "source"),
    "device": ("device", "name"),
    "threads": ("device", "threads"),
    "provider": ("device", "provider"),
    "batch": ("device", "batch"),
    "target": ("device", "target"),
    "key": ("device", "key"),
    "database": ("device", "database"),
    "budget": ("profile", "budget"),
    "sources": ("profile", "sources"),
    "share": ("profile", "share"),
    "space": ("space", "name"),
    "formats": ("space", "formats"),
    "init": ("train", "init"),
    "epochs": ("train", "epochs"),
    "objective": ("search", "objectives"),
    "count": ("export", "count"),
    "finetune": ("export", "finetune"),
}
_PARSED: Mapping[str, Callable[[Any], Any]] = {
    "sources": tuple,
    "share": _share,
    "formats": _names,
    "objective": _names,
}


def _open(arguments: argparse.Namespace, console: Console) -> Run:
    """The run that the arguments name, and torch on as many threads as it says."""
    config, note = _configure(arguments)
    run = open_run(arguments.output, config)
    if note:
        console.print(note)
    torch.set_num_threads(run.config.train.threads)
    return run


def _run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    from nas.pipeline import run_all  # torch and all engines: only where they are needed

    run = _open(arguments, console)
    run_all(run, console)
    return _summary(run, console)


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
    from hw_profiles.profile import save_profile

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
            "-" if (ratio := latency["ratio_to_reference"]) is None else f"{ratio:.2f} x",
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
    "fit": (_stage, "fit the accuracy predictor and say how good it is"),
    "search": (_stage, "search, measure the finalists, write front.json"),
    "export": (_stage, "export networks of the front as ONNX"),
    "report": (_report, "write report.html"),
    "import-ofa": (import_ofa.run, "turn a published once-for-all checkpoint into a supernet"),
    "devices": (_devices, "list what can be measured on"),
    "spaces": (_spaces, "list what can be searched"),
    "formats": (_formats, "list number formats"),
}

if __name__ == "__main__":
    sys.exit(main())
