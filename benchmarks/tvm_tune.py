"""Libraries of our own kernels against the best files of ONNX Runtime, at equal quality, in one run.

Each model is tuned twice by the command, on the same data: for ONNX Runtime, and with `--device tvm`. Of the
first front the fastest file within the model's bounds is taken; of the second the fastest library within
them that is at least as good as that file, on the same examples, which neither tune saw before. Both were
chosen by what the tunes measured, and are then timed anew, in the same turns as the original.

    python benchmarks/tvm_tune.py [--models FILE ...] [--quick] [--json OUT] [--keep DIR] [--kernels DIR]

With `--keep` tunes go on where they were, and those of ONNX Runtime are the ones of `benchmarks/tune.py
--keep` in the same folder. Kernels are tuned once per machine; an empty `--kernels` shows what that takes.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tune as tuning
from harness import Row, one_core, report
from tune_data import TuneData

from hw_profiles.measure.host import load_average
from nas.run.reporting import QUIET
from nas.run.tuned_document import TunedNetwork
from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.quality import Comparison
from nas.tune.session import stored_file, tune_session
from nas.tune.timing.turns import time_in_turns

TARGET = 1.3  # times as fast as the best file
COSTS_S: Mapping[str, float] = {  # targets for whole tunes with kernels that are tuned already
    "efficientnet_lite0": 300.0,
    "mlperf_tiny_vww96": 180.0,
    "mlperf_tiny_resnet8": 180.0,
}


@dataclass(frozen=True, eq=False)
class Pair:
    """A model that was tuned for both.

    Attributes:
        case: what is asked of it.
        files, libraries: the two tunes.
        kernels: tuned in the second one.
    """

    case: tuning.Case
    files: tuning.Tuned
    libraries: tuning.Tuned
    kernels: int

    @property
    def name(self) -> str:
        """Of the model."""
        return self.files.name

    @property
    def best(self) -> tuning.Entry:
        """The fastest file within the bounds; the original where none is."""
        return tuning.chosen(self.files.front, self.case.bounds)


@dataclass(frozen=True, eq=False)
class Entrant:
    """A file or a library that is compared.

    Attributes:
        name: id of a policy, or what a file is called.
        content: of it.
        metrics: by name, on the same unseen examples.
    """

    name: str
    content: bytes
    metrics: Mapping[str, float]


def pair(model: Path, data: TuneData, place: Path, arguments: argparse.Namespace) -> Pair:
    """Tune a model for both."""
    name, quick, kernels = model.stem, arguments.quick, arguments.kernels
    device = "tvm" if kernels is None else f"tvm:database={kernels.absolute()}"
    files = tuning.tune(model, data, place / "runs" / name, quick=quick)
    before = tuned_kernels(kernels)
    libraries = tuning.tune(model, data, place / "libraries" / name, quick=quick, device=device)
    case = replace(tuning.cases(arguments.data)[name], cost_s=COSTS_S.get(name))
    return Pair(case, files, libraries, tuned_kernels(kernels) - before)


def tuned_kernels(folder: Path | None) -> int:
    """Return how many tuned kernels a database has, that of the user where none is given."""
    from hw_profiles.runtimes.tvm_cpu.runtime import default_database

    entries = (folder or default_database()).rglob("*.json")
    return sum(json.loads(path.read_text())["tuned"] for path in entries)


def entrants(context: TuneContext, made: Pair) -> tuple[Entrant, Entrant | None]:
    """Return the best file, and the fastest library that is within the bounds and at least as good."""
    front, comparison = made.libraries.front, context.compared_on(context.tuning.parts.judging)
    content = context.tuning.original
    if isinstance(made.best, TunedNetwork):
        content = stored_file(made.files.folder, made.best.policy)
    file = _entrant(getattr(made.best, "id", "fp32"), content, comparison)
    main = front.metric
    sign = 1.0 if main.direction == "max" else -1.0
    for network in sorted(front.candidates, key=tuning.speed, reverse=True):
        genome = np.array(network.genes, np.int16)
        library = _entrant(network.id, context.files.content(genome), comparison)
        within = tuning.good_enough(front, made.case.bounds, library.metrics)
        if within and sign * library.metrics[main.name] >= sign * file.metrics[main.name]:
            return file, library
    return file, None


def _entrant(name: str, content: bytes, comparison: Comparison) -> Entrant:
    return Entrant(name, content, comparison.of_file(content, alone=True).metrics)


def rows_of(made: Pair) -> list[Row]:
    """Time the best file and its equal in turns; return how much faster the latter is."""
    name = made.name
    with tune_session(made.libraries.folder, {}, reporter=QUIET) as context:
        file, library = entrants(context, made)
        if library is None:
            print(f"{name}: no library is as good as the best file")
            return _cost_rows(made)
        contents = [context.tuning.original, file.content, library.content]
        timed = time_in_turns(context.files.device, contents, context.files.example, context.tuning.plan)
        samples = len(context.tuning.parts.judging)
    if failed := [each.error for each in timed if each.error]:
        raise RuntimeError(f"{name}: {failed[0]}")
    original, of_file, own = (np.array(each.latency.samples_s) for each in timed if each.latency)
    low, middle, high = np.percentile(of_file / own, (25, 50, 75))
    medians_ms = [1e3 * float(np.median(each)) for each in (original, of_file, own)]
    said = f"{name}: fp32, file {file.name}, library {library.name}: {medians_ms} ms"
    print(f"{said}, load {load_average()}", flush=True)
    task = f"{name}: library against the best file"
    quality = f"{name}: both on {samples:,} unseen examples"
    return [
        Row(task, "speed", "x the best file", "higher", float(middle), float(high - low), {}, TARGET),
        Row(
            task,
            "latency",
            "ms",
            "lower",
            medians_ms[2],
            0.0,
            {"best file": medians_ms[1], "fp32 file": medians_ms[0]},
        ),
        *(
            Row(
                quality,
                metric.name,
                metric.unit,
                "higher" if metric.direction == "max" else "lower",
                library.metrics[metric.name],
                0.0,
                {"best file": file.metrics[metric.name]},
            )
            for metric in made.libraries.front.metrics
            if metric.name in library.metrics and metric.name in file.metrics
        ),
        *_cost_rows(made),
    ]


def _cost_rows(made: Pair) -> list[Row]:
    task = f"{made.name}: whole tune"
    kernels = Row(task, "kernels tuned in it", "kernels", "lower", made.kernels, 0.0)
    return [*tuning.cost_rows(made.libraries, made.case), kernels]


def main() -> None:
    """Tune every model twice, print and write."""
    parser = tuning.parser()
    parser.add_argument(
        "--kernels", type=Path, metavar="DIR", help="tuned kernels (default: those of the user)"
    )
    arguments = parser.parse_args()
    models = arguments.models or [arguments.data / "models" / f"{name}.onnx" for name in COSTS_S]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, one_core():
        place = (arguments.keep or Path(name)).absolute()
        for model in models:
            case = tuning.cases(arguments.data)[model.stem]
            data = tuning.data_of(case, place / "data" / model.stem)
            if not model.is_file() or data is None or not data.source:
                print(f"{model}: left out: no such file, or no data for it")
                continue
            rows += rows_of(pair(model.absolute(), data, place, arguments))
    report("tvm_tune", rows, arguments.json)


if __name__ == "__main__":
    main()
