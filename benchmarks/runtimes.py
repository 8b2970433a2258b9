"""Each runtime of this machine: how right its tables are, and whether its mixes beat its own int8 recipe.

Three parts; every one is made of `nas` commands as people run them, goes on where it was stopped with
`--keep DIR`, and can be asked for alone with `--parts`:

- `tables`: profiles a space on each runtime, and predicts whole networks that its table was not fitted to;
- `mixes`: tunes each model for each runtime, and compares the mix found with the runtime's own default
  recipe at equal quality: the fastest file of the front that is no worse on examples that nothing has seen,
  timed in the same turns. It is the first recipe that a runtime's own tools have; of one without it is every
  unit in int8, written as it wants that; NNCF's joins where `nncf` is installed. Times of policies that were
  left out are predicted, too;
- `together`: each model in fp32 and in the mix of each runtime, all in the same turns; so are the exported
  networks of the runs of `--fronts`.

    python benchmarks/runtimes.py --keep DIR [--parts mixes] [--runtimes ort,tvm] [--models FILE ...]
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report
from tune import ROOT, Peer, Tuned, cases, data_of, peers, speed, tune, value

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.latency_model import prediction_error
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.runtimes.plugin import DeviceChoice, device_kind
from nas.run.reporting import QUIET
from nas.run.tuned_document import ALL_INT8, Reference, TunedFront, TunedNetwork
from nas.runtimes.comparison import RuntimeComparison, compare_files
from nas.runtimes.contestants import (
    Contestant,
    best_mixes,
    example_of,
    exported,
    in_fp32,
    installed,
    original_of,
)
from nas.tune.session import tune_session

RUNTIMES = ("ort", "openvino", "tvm", "litert")
MAPE, TAU = 0.03, 0.97  # targets of every table
EVEN = 1.0  # target of every mix, times as fast as the recipe
PRECISIONS = ("fp32", "int8", "mixed")


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and where.

    Attributes:
        keep: folder of all that is made.
        runtimes: as `--device` takes them.
        models: ONNX files.
        data: folder with published data.
        space: whose tables are judged.
        fronts: folders of runs.
        quick: small and noisy.
    """

    keep: Path
    runtimes: tuple[str, ...]
    models: tuple[Path, ...]
    data: Path
    space: str
    fronts: tuple[Path, ...]
    quick: bool


class RefusedError(Exception):
    """A command that ends with a line that says why."""


def nas(*words: str) -> dict[str, Any]:
    """Run a command of `nas`, and return what it says as JSON.

    Raises:
        RefusedError: it fails; with its last line.
    """
    print(f"nas {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "nas.cli.main", *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def left_out(what: str) -> Iterator[None]:
    """Say in one line that something is left out where a command refuses it, and go on."""
    try:
        yield
    except (RefusedError, TrilobitError) as error:
        print(f"{what}: left out: {error}", flush=True)


# -- tables -------------------------------------------------------------------------------------------


def tables(benchmark: Benchmark) -> Iterator[Row]:
    """Yield the errors of each runtime's table on whole networks that were held out of its calibration."""
    for runtime in benchmark.runtimes:
        with left_out(f"tables, {runtime}"):
            yield from table_rows(f"table of {benchmark.space} on {runtime}", profiled(benchmark, runtime))


def profiled(benchmark: Benchmark, runtime: str) -> DeviceProfile:
    """Profile the space on a runtime.

    Raises:
        RefusedError: it cannot be.
    """
    folder = benchmark.keep / "tables" / runtime
    images = benchmark.data / "cifar10-images.tar.xz"
    source = f"cifar10:{images.absolute()}" if benchmark.space.startswith("cifar") else "digits"
    fast = ("--budget", "40s") if benchmark.quick else ()
    nas(
        *("profile", "--device", runtime, "--space", benchmark.space, "--data", source),
        *(*fast, "-o", str(folder)),
    )
    [path] = (folder / "profiles").glob("*.json")
    return load_profile(path)


def table_rows(task: str, profile: DeviceProfile) -> Iterator[Row]:
    """Yield mean error and rank correlation for each precision."""
    assert profile.calibration is not None
    for precision in PRECISIONS:
        error = profile.calibration.held_out_error(precision)
        if error["n"]:
            yield from error_rows(f"{task}, {error['n']:.0f} networks in {precision}", error)


def error_rows(task: str, error: Mapping[str, float]) -> Iterator[Row]:
    """Yield mean error and rank correlation of predicted times."""
    yield Row(task, "MAPE", "fraction", "lower", error["mape"], 0.0, target=MAPE)
    yield Row(task, "Kendall tau", "1", "higher", error["kendall_tau"], 0.0, target=TAU)


# -- mixes --------------------------------------------------------------------------------------------


def mixes(benchmark: Benchmark) -> Iterator[Row]:
    """Yield for each model and runtime how much faster its mix is than its recipe, and how many are."""
    ratios = dict[str, list[float]]()
    for model, runtime in each_pair(benchmark):
        with left_out(f"mixes, {model.stem} on {runtime}"):
            tuned = tuned_for(benchmark, model, runtime)
            task = f"{model.stem} on {runtime}"
            row = mix_row(task, tuned.front, recipe_of(runtime, tuned.front), peers(tuned))
            ratios.setdefault(runtime, []).append(row.ours)
            yield row
            yield from policy_rows(task, tuned)
    for runtime, gained in ratios.items():
        task = f"mixes on {runtime}, {len(gained)} models"
        slower, faster = sum(gain < EVEN for gain in gained), sum(gain > EVEN for gain in gained)
        yield Row(task, "slower than its recipe", "models", "lower", slower, 0.0, target=0)
        yield Row(task, "faster than its recipe", "models", "higher", faster, 0.0)


def each_pair(benchmark: Benchmark) -> Iterator[tuple[Path, str]]:
    """Yield every model with every runtime."""
    return ((model, runtime) for model in benchmark.models for runtime in benchmark.runtimes)


def tuned_for(benchmark: Benchmark, model: Path, runtime: str) -> Tuned:
    """Tune a model for a runtime; what was done before is taken as it is.

    Raises:
        RefusedError: there is no data for it here, or it cannot be tuned.
    """
    case = cases(benchmark.data).get(model.stem)
    data = None if case is None else data_of(case, (benchmark.keep / "data" / model.stem).absolute())
    if data is None or not data.source:
        raise RefusedError(f"no data for {model.name} here")
    folder = tune_folder(benchmark, model, runtime)
    try:
        return tune(model.absolute(), data, folder, quick=benchmark.quick, device=runtime)
    except RuntimeError as error:
        raise RefusedError(str(error)) from None


def tune_folder(benchmark: Benchmark, model: Path, runtime: str) -> Path:
    """Return the folder of a model's tune for a runtime."""
    return benchmark.keep / "mixes" / model.stem / runtime.replace(":", "-")


def recipe_of(runtime: str, front: TunedFront) -> Reference:
    """Return the runtime's own default recipe: of one that has none, every unit in int8.

    Raises:
        RefusedError: it does not take the model.
    """
    own = device_kind(runtime.partition(":")[0]).recipes
    name = own[0].name if own else ALL_INT8
    recipe = next(reference for reference in front.references if reference.name == name)
    if recipe.latency is None or recipe.judging is None:
        raise RefusedError(f"{recipe.title} does not take it: {recipe.error}")
    return recipe


def mix_row(task: str, front: TunedFront, recipe: Reference, others: Mapping[str, Peer]) -> Row:
    """Return how many times as fast as the recipe the mix is, pass by pass.

    Args:
        others: files of tools that are not always there.
    """
    mix = at_equal_quality(front, recipe)
    assert mix.latency is not None
    assert recipe.latency is not None
    gains = np.array(recipe.latency.samples_s) / np.array(mix.latency.samples_s)
    name = front.metric.name
    speeds = {"the mix": speed(mix), recipe.name: speed(recipe)} | {n: p.speed for n, p in others.items()}
    values = {"the mix": value(mix.judging, name), recipe.name: value(recipe.judging, name)}
    values |= {n: peer.metrics[name] for n, peer in others.items() if name in peer.metrics}
    beside = {f"{n} against fp32": each for n, each in speeds.items()}
    beside |= {f"{name} of {n}": each for n, each in values.items()}
    metric = "speed of the mix at equal quality"
    gain = float(np.median(gains))
    return Row(task, metric, f"x {recipe.name}", "higher", gain, interquartile_range(gains), beside, EVEN)


def at_equal_quality(front: TunedFront, recipe: Reference) -> TunedNetwork | Reference:
    """Return the fastest file of a front that is no worse than a recipe on unseen examples; the original
    where there is none, which is as good as can be.
    """
    name, sign = front.metric.name, 1.0 if front.metric.direction == "max" else -1.0
    least = sign * value(recipe.judging, name)
    allowed = [
        network
        for network in front.candidates
        if network.latency and network.judging and sign * value(network.judging, name) >= least
    ]
    return max(allowed, key=speed, default=front.original)


def policy_rows(task: str, tuned: Tuned) -> Iterator[Row]:
    """Yield how right the tune's predicted times are, of policies that it had not timed when it predicted."""
    with tune_session(tuned.folder, {}, reporter=QUIET) as context:
        accuracy = context.clock.accuracy(context.clock.measured())
    if accuracy is not None and accuracy.kendall_tau is not None:
        error = {"mape": accuracy.mape, "kendall_tau": accuracy.kendall_tau}
        yield from error_rows(f"{task}, times of {accuracy.tested} policies left out", error)
    both = [
        (entry.predicted["latency"].value, entry.latency.median_s)
        for entry in (*tuned.front.candidates, *tuned.front.evaluated)
        if entry.latency and "latency" in entry.predicted
    ]
    if len(both) > 1:
        predicted, measured = np.array(both, np.float64).T
        yield from error_rows(
            f"{task}, times of {len(both)} finalists", prediction_error(predicted, measured)
        )


# -- together -----------------------------------------------------------------------------------------


def together(benchmark: Benchmark) -> Iterator[Row]:
    """Yield the time of each model on each runtime, in fp32 and as the mix no worse than its recipe."""
    for model in benchmark.models:
        with left_out(f"together, {model.stem}"):
            yield from fastest_rows(model.stem, model_files(benchmark, model))
    for folder in benchmark.fronts:
        with left_out(f"together, {folder}"):
            comparison = compare_files(exported(folder, runtimes_here(benchmark)))
            task = f"{folder.name}, {len({file.file for file in comparison.files})} networks"
            beside = {f"mean over the fastest, {each.device}": each.ratio for each in comparison.runtimes}
            yield Row(task, "runtime of the least mean", "x", "lower", min(beside.values()), 0.0, beside)


def runtimes_here(benchmark: Benchmark) -> list[DeviceChoice]:
    """Return the runtimes of ONNX files among those that are asked for; the others take part by their tunes.

    Raises:
        RefusedError: none of them is here.
    """
    files = [each for each in benchmark.runtimes if device_kind(each.partition(":")[0]).artifact == "onnx"]
    usable, notes = installed(files) if files else ([], [])
    for note in notes:
        print(note, flush=True)
    if not usable:
        raise RefusedError("none of the runtimes runs ONNX files here")
    return usable


def model_files(benchmark: Benchmark, model: Path) -> RuntimeComparison:
    """Time a model on every runtime of ONNX files, and the mix of each runtime on that.

    Raises:
        RefusedError: nothing is tuned yet.
    """
    mixes, folders = list[Contestant](), list[Path]()
    for runtime in benchmark.runtimes:
        folder = tune_folder(benchmark, model, runtime)
        if any(folder.glob("export/*/manifest.json")):
            folders.append(folder)
            mixes += best_mixes(folder, (mix_in(folder, runtime),), run_library=True)
    if not folders:
        raise RefusedError("nothing is tuned yet: run the part `mixes` before")
    plain = in_fp32(original_of(folders[0]), runtimes_here(benchmark))
    return compare_files([*plain, *mixes], inputs=example_of(folders[0]))


def mix_in(folder: Path, runtime: str) -> str:
    """Return the fastest exported file of a tune that is no worse than the runtime's recipe; the knee where
    there is none.
    """
    front = read_document(folder / "front.json", TunedFront)
    there = [each for each in front.candidates if (folder / "export" / each.id).is_dir()]
    mix = at_equal_quality(replace(front, candidates=tuple(there)), recipe_of(runtime, front))
    return mix.id if isinstance(mix, TunedNetwork) else "knee"


def fastest_rows(task: str, comparison: RuntimeComparison) -> Iterator[Row]:
    """Yield one row for the fastest file in fp32 and one for the fastest mix, all others its peers."""
    for kind, plain in (("fp32", True), ("mix", False)):
        times = {
            f"{file.formats} on {file.device}": 1e6 * file.latency.median_s
            for file in comparison.files
            if file.latency is not None and (file.formats == "fp32") is plain
        }
        if times:
            best = min(times, key=times.__getitem__)
            yield Row(f"{task}, {kind}: {best}", "time", "us", "lower", times[best], 0.0, times)


# -- the command --------------------------------------------------------------------------------------

PARTS: Mapping[str, Callable[[Benchmark], Iterator[Row]]] = {
    "tables": tables,
    "mixes": mixes,
    "together": together,
}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    arguments = argument_parser(__doc__, seeds=1)
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="folder of profiles and tunes, kept")
    arguments.add_argument("--parts", default=",".join(PARTS), help="(default: %(default)s)")
    arguments.add_argument("--runtimes", default=",".join(RUNTIMES), help="(default: %(default)s)")
    arguments.add_argument("--models", type=Path, nargs="+", metavar="FILE", help="(default: all known)")
    arguments.add_argument("--space", default="cifar-mbconv", help="of the tables (default: %(default)s)")
    arguments.add_argument("--fronts", type=Path, nargs="+", default=(), metavar="RUN", help="also together")
    return arguments


def main() -> None:
    """Do the parts that are asked for, print and write."""
    arguments = parser().parse_args()
    chosen = arguments.parts.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        raise SystemExit(f"--parts: unknown {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if missing := [str(path) for path in arguments.models or () if not path.is_file()]:
        raise SystemExit(f"--models: no such file: {', '.join(missing)}")
    known = [arguments.data / "models" / f"{name}.onnx" for name in cases(arguments.data)]
    with tempfile.TemporaryDirectory() as name, one_core():
        benchmark = Benchmark(
            keep=(arguments.keep or Path(name)).absolute(),
            runtimes=tuple(arguments.runtimes.split(",")),
            models=tuple(arguments.models or filter(Path.is_file, known)),
            data=arguments.data,
            space=arguments.space,
            fronts=tuple(path.absolute() for path in arguments.fronts),
            quick=arguments.quick,
        )
        rows = [row for part in PARTS if part in chosen for row in PARTS[part](benchmark)]
    report("runtimes", rows, arguments.json)


if __name__ == "__main__":
    main()
