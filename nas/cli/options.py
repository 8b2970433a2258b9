"""The options of every command, made from the table of flags, in groups."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw_profiles.options import Option
from nas.cli.flag import OPTIONS, Flag, Form
from nas.cli.flags import OWN, RUN_GROUPS, TUNE_GROUPS
from nas.run.registry import STAGES

DEFAULT_FOLDER = Path("runs/default")


def add_options(name: str, command: argparse.ArgumentParser) -> None:
    """Give the command called `name` its options, in groups."""
    shared = command.add_argument_group("always")
    shared.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    if name in _MORE:
        _MORE[name](command)
    if name in ("run", *STAGES):
        _folder_option(shared)
    for group in (*RUN_GROUPS, *TUNE_GROUPS):
        if name in group.commands:
            titled = command.add_argument_group(group.title)
            for flag in group.flags:
                _add(titled, flag, dest=flag.key)
            if group.title == "measuring":
                _rpc_option(titled)
    for flag in OWN.get(name, ()):
        _add(command, flag, dest=OPTIONS[flag.key].key, default=_own_default(OPTIONS[flag.key]))


def _add(parser: argparse._ActionsContainer, flag: Flag, *, dest: str, default: Any = None) -> None:
    kinds: Mapping[Form, dict[str, Any]] = {
        "once": {"type": flag.read, "metavar": flag.metavar},
        "list": {"type": flag.read, "metavar": flag.metavar},
        "each": {"type": flag.read, "metavar": flag.metavar, "action": "append"},
        "on": {"action": "store_true"},
    }
    parser.add_argument(
        *flag.words.split(), dest=dest, default=default, help=flag.help + flag.hint, **kinds[flag.form]
    )


def _own_default(option: Option) -> Any:
    """Return what a command's own option is where nothing is said; None where that is left open."""
    return None if option.default in ((), "") else option.default


def _folder_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="run folder (default: %(default)s)",
    )


def _rpc_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--rpc", nargs=2, metavar=("tracker", "HOST:PORT"), help="measure on boards, through TVM's tracker"
    )


def _run_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", type=Path, help="a TOML file with the sections of run.toml")
    command.add_argument(
        "--reset",
        action="store_true",
        help="start from the defaults, not from what the folder's run.toml says",
    )


def _tune_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", nargs="?", type=Path, metavar="MODEL", help="an ONNX file")
    add("--config", type=Path, metavar="FILE", help="TOML with the sections of run.toml")
    add(
        "--reset",
        action="store_true",
        help="start from the defaults, not from what the folder's run.toml says",
    )
    add("-o", "--output", type=Path, metavar="DIR", help="run folder (default: runs/ and the model's name)")


def _train_arguments(command: argparse.ArgumentParser) -> None:
    _run_arguments(command)
    command.add_argument(
        "--ship", type=Path, metavar="FILE", help="then write the weights in compact form, and a model card"
    )
    command.add_argument(
        "--ship-macs", default="", metavar="A,B", help="the card also has networks of about so many "
        "multiply-adds, such as 12M,26M"
    )  # fmt: skip


def _fit_arguments(command: argparse.ArgumentParser) -> None:
    _run_arguments(command)
    command.add_argument("--report", action="store_true", help="print how good the predictors are, in full")


def _compare_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=Path, metavar="A", help="a profile")
    command.add_argument("b", type=Path, metavar="B", help="another")
    command.add_argument("--space", metavar="NAME", help="also compare how they rank networks of this space")
    command.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, .html or .svg")


def _import_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("table", type=Path, help="OFA or ProxylessNAS table (.json), BitFusion (.npz)")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="PROFILE.json", help="where to")


def _import_ofa_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("file", type=Path, metavar="FILE", help="a published once-for-all checkpoint")
    add("--space", metavar="NAME", help="whose it is (default: found by the names and shapes of its tensors)")
    add("--formats", metavar="A,B", help="number formats of the space, see `nas formats`")
    add("-o", "--output", type=Path, metavar="OUT.pt", help="default: the space's name, in this folder")


def _bench_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL", help="an .onnx file, or an exported folder")
    _library_option(command)


def _compare_runtimes_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("networks", nargs="+", type=Path, metavar="MODEL|RUN", help="an ONNX file; the folder of a tune, "
        "whose best mix joins; or of a run, whose exported networks do")  # fmt: skip
    add("--device", dest="devices", action="append", metavar="NAME", help="a runtime, with options if need "
        "be; may be repeated (default: all that run ONNX files here)")  # fmt: skip
    add("--data", metavar="SOURCE", help="examples: first tune the model for each runtime, see `nas tune`")
    add(
        "--config", type=Path, metavar="FILE", help="with --data: TOML with the sections of a tune's run.toml"
    )
    add("--budget", metavar="TIME", help="with --data: for each tune, such as 5m")
    add("-o", "--output", type=Path, metavar="DIR", help="with --data: where the tunes are "
        "(default: runs/ and the model's name)")  # fmt: skip
    add("--pick", action="append", metavar="WHICH", help="file of each tune: knee (the default), "
        "fastest>=97%%, best<=8ms, or an id; may be repeated")  # fmt: skip
    add("--inputs", type=Path, metavar="FILE", help="what the files read: .npz with an array for each "
        "input (default: the example of a tune, or random numbers)")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="write a drawing, .svg")
    _library_option(command)


def _inspect_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file")
    command.add_argument("--units", action="store_true", help="a line for every unit, not for every kind")


def _library_option(command: argparse.ArgumentParser) -> None:
    help_ = "let model.so run: machine code of whoever made it, with your rights"
    command.add_argument("--run-library", action="store_true", help=help_)


def _verify_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", type=Path, metavar="DIR", help="the folder of an exported network, of several, or of a run")
    add("--data", metavar="SOURCE", help="measure accuracy again on its test part")
    add("--no-latency", action="store_true", help="leave latency out")
    add("--verify-key", type=Path, metavar="FILE", help="the manifest must be signed by this ed25519 key "
        "(its public part, PEM)")  # fmt: skip
    add("--device", default="", metavar="NAME", help="what runs the files, such as ssh:USER@HOST/ort "
        "(default: what they were made for, or ort)")  # fmt: skip
    _library_option(command)


def _design_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", default="digits", metavar="SOURCE", help="digits, imagefolder:PATH or cifar10:PATH")
    add("--device", default="ort", metavar="NAME", help="see `nas devices`")
    add("--teacher", metavar="CHECKPOINT", help="a trained supernet whose largest network is imitated: a "
        "file, a run folder, or shipped:NAME")  # fmt: skip
    add("--types", metavar="A,B", help="block types (default: all)")
    add("--max-latency", metavar="TIME,TIME", help="limits to design for, such as 0.3ms, or 40%% of the "
        "slowest network's (default: what half of all random networks meet)")  # fmt: skip
    add("--table", metavar="FILE[:DEVICE]", help="design on SpaceEvo's published block table (their folder "
        "of CSV files, or the same as .npz) in place of imitating and measuring")  # fmt: skip
    add("--spaces", metavar="TYPES-WINDOWS,...", help="with --table: spaces to score beside it, such as "
        "151122-023231: a digit for the block type and for the width window of every stage")  # fmt: skip
    add("--title", default="designed", metavar="NAME", help="of the space (default: %(default)s)")
    add("-o", "--output", type=Path, default=Path("designs/default"), metavar="DIR", help="where the space "
        "is written, as space.json, and what it comes from")  # fmt: skip


_MORE: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    **dict.fromkeys(("run", "profile", "sample", "search", "export"), _run_arguments),
    "train": _train_arguments,
    "tune": _tune_arguments,
    "fit": _fit_arguments,
    "profile compare": _compare_arguments,
    "profile import": _import_arguments,
    "import-ofa": _import_ofa_arguments,
    "spaces design": _design_arguments,
    "bench": _bench_arguments,
    "compare-runtimes": _compare_runtimes_arguments,
    "inspect": _inspect_arguments,
    "verify": _verify_arguments,
}
