"""Libraries of our own kernels against the best files of ONNX Runtime, at equal quality, in one run.

Each model is tuned twice by the command, on the same data: for ONNX Runtime, and with `--device tvm`. Of the
first front the fastest file within the model's bounds is taken; of the second all libraries that are within
them and at least as good as that file. All are then timed in the same turns, the original among them.

    python benchmarks/tvm_tune.py [--models FILE ...] [--quick] [--json OUT] [--keep DIR]
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tune as tuning
from harness import Row, one_core, report
from tune_data import TuneData

from hw_profiles.measure.host import load_average
from nas.run.reporting import QUIET
from nas.run.tuned_document import TunedNetwork
from nas.tune.session import stored_file, tune_session
from nas.tune.turns import time_in_turns

TARGET = 1.3  # times as fast as the best file
MODELS = ("efficientnet_lite0", "mlperf_tiny_vww96", "mlperf_tiny_resnet8")


@dataclass(frozen=True, eq=False)
class Pair:
    """A model that was tuned for both.

    Attributes:
        files, libraries: the two tunes.
        best: the fastest file within the bounds; the original where none is.
        equal: libraries that are within them and as good.
    """

    files: tuning.Tuned
    libraries: tuning.Tuned
    best: tuning.Entry
    equal: tuple[TunedNetwork, ...]


def metrics_of(network: TunedNetwork) -> dict[str, float]:
    """Return the metrics of a library on unseen examples."""
    return {name: figure.value for name, figure in network.judging.metrics.items()} if network.judging else {}


def pair(model: Path, case: tuning.Case, data: TuneData, folder: Path, *, quick: bool) -> Pair:
    """Tune a model for both."""
    files = tuning.tune(model, data, folder / "ort", quick=quick)
    libraries = tuning.tune(model, data, folder / "tvm", quick=quick, device="tvm")
    best, main = tuning.chosen(files.front, case.bounds), libraries.front.metric
    sign = 1.0 if main.direction == "max" else -1.0
    least = sign * tuning.value(best.judging, main.name)
    equal = [
        network
        for network in libraries.front.candidates
        if tuning.good_enough(libraries.front, case.bounds, metrics_of(network))
        and sign * tuning.value(network.judging, main.name) >= least
    ]
    return Pair(files, libraries, best, tuple(equal))


def rows_of(model: Path, made: Pair) -> list[Row]:
    """Time the best file and its equals in turns; return how much faster the fastest of them is."""
    name, best = model.stem, made.best
    if not made.equal:
        print(f"{name}: no library is as good as the best file")
        return []
    with tune_session(made.libraries.folder, {}, reporter=QUIET) as context:
        file = model.read_bytes()
        if isinstance(best, TunedNetwork):
            file = stored_file(made.files.folder, best.policy)
        genomes = np.array([network.genes for network in made.equal], np.int16)
        contents = [context.tuning.original, file, *map(context.files.content, genomes)]
        timed = time_in_turns(context.files.device, contents, context.files.example, context.tuning.plan)
    if failed := [each.error for each in timed if each.error]:
        raise RuntimeError(f"{name}: {failed[0]}")
    _, of_file, *own = (np.array(each.latency.samples_s) for each in timed if each.latency)
    fastest = min(range(len(own)), key=lambda i: float(np.median(own[i])))
    low, middle, high = np.percentile(of_file / own[fastest], (25, 50, 75))
    main = made.libraries.front.metric
    qualities = [tuning.value(each.judging, main.name) for each in (made.equal[fastest], best)]
    task = f"{name}: library against the best file, {main.name} {qualities[0]:.4g} and {qualities[1]:.4g}"
    own_ms, file_ms = 1e3 * float(np.median(own[fastest])), 1e3 * float(np.median(of_file))
    print(f"{name}: {own_ms:.3f} ms, best file {file_ms:.3f} ms, load {load_average()}")
    return [
        Row(task, "speed", "x the best file", "higher", float(middle), float(high - low), {}, TARGET),
        Row(task, "latency", "ms", "lower", own_ms, 0.0, {"best file": file_ms}),
    ]


def main() -> None:
    """Tune every model twice, print and write."""
    arguments = tuning.parser().parse_args()
    known = tuning.cases(arguments.data)
    models = arguments.models or [arguments.data / "models" / f"{name}.onnx" for name in MODELS]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, one_core():
        place = (arguments.keep or Path(name)).absolute()
        for model in models:
            case = known[model.stem]
            made = case.data(place / "data" / model.stem)
            if not model.is_file() or made is None or not made.source:
                print(f"{model}: left out: no such file, or no data for it")
                continue
            folder = place / "both" / model.stem
            rows += rows_of(model, pair(model.absolute(), case, made, folder, quick=arguments.quick))
    report("tvm_tune", rows, arguments.json)


if __name__ == "__main__":
    main()
