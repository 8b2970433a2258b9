"""What the commands take: their options, and the configuration that options, file and data make together."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from nas import import_ofa
from nas.config import OF_ONE_ENGINE, RunConfig
from nas.config_file import parse_config, read_document
from nas.defaults import with_defaults
from nas.design import options as design
from nas.objectives import OBJECTIVES
from nas.run import STAGES
from nas.sampling import STRATEGIES
from supernet.family import FILE

DEFAULT_FOLDER = Path("runs/default")
LIMITS = {
    "max_latency": "latency",
    "max_size": "size",
    "max_memory": "memory",
    "max_macs": "macs",
    "min_accuracy": "accuracy",
}


def add_options(name: str, command: argparse.ArgumentParser) -> None:
    """Give the command called `name` its options."""
    command.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    for options, commands in _SHARED.items():
        if name in commands:
            options(command)
    if name in _OWN:
        _OWN[name](command)


def _profile_options(command: argparse.ArgumentParser) -> None:
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


def _train_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--init", metavar="CHECKPOINT", help="weights to start from: a file, shipped:NAME, or none")
    add("--epochs", type=int, metavar="N", help="passes over the training images; 0 uses the weights of "
        "--init as they are")  # fmt: skip


def _sample_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--strategy", metavar="NAME", help=f"which networks are evaluated: {', '.join(STRATEGIES)}")
    add("--fp32", type=int, metavar="N", help="evaluate exactly N networks in fp32 (default: until more "
        "would not help)")  # fmt: skip
    add("--quantized", type=int, metavar="N", help="and exactly N quantized ones (default: likewise)")


def _fit_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--prior", metavar="RUN", help="folder of another run whose accuracies the predictor starts from")


def _report_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--report", action="store_true", help="print how good the predictors are, in full")


def _export_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--pick", action="append", metavar="WHICH", help="knee, 'fastest>=92%%', 'best<=0.3ms', all, or an "
        "id; may be repeated (default: --count well-spread ones)")  # fmt: skip
    add("--dynamic-batch", action="store_true", default=None, help="files that take any number of images")
    add("--pixels", action="store_true", default=None, help="files that take uint8 pixels and normalise them "
        "themselves")  # fmt: skip
    add("--library", metavar="TARGET", help="a shared library too, compiled by TVM: host, or for example "
        "aarch64-linux-gnu:cortex-a76 (default: where --device is tvm)")  # fmt: skip
    add("--finetune", type=int, metavar="EPOCHS", help="train each network on, in its formats, before it is "
        "exported; kept where that helps")  # fmt: skip


def _validate_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--validate", type=int, metavar="N", help="then measure N new random networks of each kind"
    )


def _ship_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ship", type=Path, metavar="FILE", help="then write the weights in their compact "
        "form, and their model card beside them")  # fmt: skip


def _compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=Path, metavar="A", help="a profile")
    command.add_argument("b", type=Path, metavar="B", help="another")
    command.add_argument("--space", metavar="NAME", help="also compare how they rank networks of this space")
    command.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, .html or .svg")


def _import_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("table", type=Path, help="OFA or ProxylessNAS table (.json), BitFusion (.npz)")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="PROFILE.json")


def _worker_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("-o", "--output", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="the run folder, shared "
        "with the machine that leads the run, or a copy of it")  # fmt: skip
    add("--storage", metavar="URL", help="default: the one that run.toml names")
    add("--data", metavar="SOURCE", help="where the run's data is on this machine, if it is elsewhere")
    add("--measure", action="store_true", help="measure finalists too: this machine is the run's device, and "
        "does nothing else")  # fmt: skip
    add("--idle", metavar="TIME", help="leave after so long without work, for example 10m (default: stay)")
    add("--status", action="store_true", help="only say who works on what")


def _bench_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("model", type=Path, metavar="MODEL", help="an .onnx file, or the folder of an exported network")
    add("--threads", type=_numbers, default=(1,), metavar="N,M", help="threads of one inference (default: 1)")
    add(
        "--batch",
        type=_numbers,
        metavar="N,M",
        help="images of one inference (default: the file's own, or 1)",
    )
    add("--seconds", type=float, default=3.0, metavar="S", help="of timing, for each setting (default: 3)")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 1, such as 1,2,4")
    return found


def _verify_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", type=Path, metavar="DIR", help="the folder of an exported network, of several, or of a run")
    add("--data", metavar="SOURCE", help="measure accuracy again on its test part")
    add("--no-latency", action="store_true", help="leave latency out")


def _run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", type=Path, help="a TOML file with the sections of run.toml")
    command.add_argument(
        "-o", "--output", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="the run folder"
    )
    command.add_argument("--data", metavar="SOURCE", help="digits, imagefolder:PATH or cifar10:PATH")
    command.add_argument("--device", metavar="NAME", help="see `nas devices`")
    command.add_argument("--threads", type=int, metavar="N", help="threads of one inference")
    command.add_argument("--space", metavar="NAME", help="see `nas spaces`; or FILE.json of a designed one")
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
    command.add_argument("--storage", metavar="URL", help="of a database in which `nas worker` on other "
        "machines finds what to evaluate: postgresql+psycopg://USER@HOST/DATABASE")  # fmt: skip


def _search_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--engine", "--searcher", dest="searcher", metavar="NAME", help="evolution, nsga2, nsga3, rnsga2, "
        "optuna-nsga2, tpe, aging or random; milp allocates the formats of one --architecture")  # fmt: skip
    add("--latency-confidence", type=float, metavar="SHARE", help="with which networks are to be within "
        "--max-latency, given the profile's error: 0.95 leaves a margin (default: 0.5)")  # fmt: skip
    add("--focus", action="store_true", default=None, help="search near the limits only, instead of "
        "the whole front inside them")  # fmt: skip
    add("--aim", dest="aims", action="append", metavar="A=X,B=Y", help="where rnsga2 goes, for example "
        "accuracy=95%%,latency=0.3ms; may be repeated (default: the limits)")  # fmt: skip
    add("--architecture", metavar="WHICH", help="of milp: largest, smallest, an id, or genes 0,1,...")
    add("--sensitivity", metavar="KIND", help="of milp: kl, sqnr or hessian")


# who has which options
_SHARED: Mapping[Callable[[argparse.ArgumentParser], None], tuple[str, ...]] = {
    _run_options: ("run", *STAGES),
    _profile_options: ("run", "profile"),
    _train_options: ("run", "train"),
    _sample_options: ("run", "sample"),
    _fit_options: ("run", "fit"),
    _search_options: ("run", "search"),
    _export_options: ("run", "export"),
}
_OWN: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "profile": _validate_option,
    "train": _ship_option,
    "fit": _report_option,
    "profile compare": _compare_options,
    "profile import": _import_options,
    "import-ofa": import_ofa.add_options,
    "spaces design": design.add_options,
    "bench": _bench_options,
    "verify": _verify_options,
    "worker": _worker_options,
}


def configure(arguments: argparse.Namespace) -> tuple[RunConfig, str]:
    """The configuration file, else the one already in the run folder, else the defaults; options on top. And
    a line on what was filled in because of the data or the checkpoint to start from.
    """
    existing = arguments.output / "run.toml"
    path = arguments.config or (existing if existing.exists() else None)
    document = read_document(path) if path is not None else {}
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    for section, values in _sections(given).items():
        found = document.get(section, {})
        if isinstance(found, Mapping) and found.get("searcher") != values.get(
            "searcher", found.get("searcher")
        ):
            found = {key: value for key, value in found.items() if key not in OF_ONE_ENGINE}
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
    if "count" in given and "pick" not in given:  # a spread, whatever was picked before
        put("export", "pick", ())
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
    "strategy": ("sample", "strategy"),
    "fp32": ("sample", "fp32"),
    "quantized": ("sample", "quantized"),
    "prior": ("fit", "prior"),
    "objective": ("search", "objectives"),
    "searcher": ("search", "searcher"),
    "latency_confidence": ("search", "latency_confidence"),
    "focus": ("search", "focus"),
    "aims": ("search", "aims"),
    "architecture": ("search", "architecture"),
    "sensitivity": ("search", "sensitivity"),
    "count": ("export", "count"),
    "pick": ("export", "pick"),
    "dynamic_batch": ("export", "dynamic_batch"),
    "pixels": ("export", "pixels"),
    "library": ("export", "library"),
    "finetune": ("export", "finetune"),
    "storage": ("storage", "url"),
}
_PARSED: Mapping[str, Callable[[Any], Any]] = {
    "space": lambda name: str(Path(name).resolve()) if name.endswith(FILE) else name,
    "prior": lambda folder: str(Path(folder).resolve()),
    "sources": tuple,
    "aims": tuple,
    "pick": tuple,
    "share": _share,
    "formats": _names,
    "objective": _names,
}
