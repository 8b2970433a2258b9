"""`nas tune` on trained models of others, against the original and what the usual recipes make of it.

Each model is tuned by the command, as people would; its front and its references (the original in fp32, ONNX
Runtime's recipes, everything in int8, dynamic int8) are timed in the same turns and judged on examples that
nothing saw before. NNCF's post-training default joins where `nncf` is installed: timed in turns with the
original and judged on the same examples. (neuroquant takes torch modules only, so it has no column here.)

    python benchmarks/tune.py [--models FILE ...] [--quick] [--json OUT]

A model that the table below does not know needs `--source` and, for images, what follows it in `--options`.
"""

import argparse
import json
import logging
import math
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tune_data
from harness import Row, argument_parser, one_core, report
from scipy.stats import kendalltau
from tune_data import TuneData

from hw_profiles.documents import read_document
from nas.run.documents import Timings
from nas.run.reporting import QUIET
from nas.run.tuned_document import PartQuality, Reference, TunedFront, TunedNetwork
from nas.tune.evaluation.context import TuneContext
from nas.tune.pipeline import sampled_policies
from nas.tune.policies.first_policies import varied_policies
from nas.tune.policies.space import policy_of
from nas.tune.search.knowledge import FLOOR, learned_quality, look_up
from nas.tune.session import tune_session
from nas.tune.timing.turns import time_in_turns
from supernet.data.samples import Samples
from supernet.data.split_samples import split_samples
from supernet.space.space import row_keys, unique_rows

ROOT = Path(__file__).parents[1]
NOT_COUNTED = ("report",)  # stages that are not part of a tune's cost
TAU, MAPE = 0.85, 3.0  # targets of every model's predictors
UNSEEN = 60  # random policies that the first is judged on


@dataclass(frozen=True)
class Case:
    """A model that others trained, and what is asked of it.

    Attributes:
        data: makes examples of what it reads in a folder; None where that needs files that are not here.
        bounds: least or largest value by metric, at which the fastest file counts.
        speed: target: times as fast as the original at these.
        cost_s: target for the whole tune; None without.
        lost: accuracy that the smallest file may lose, where its size counts.
        size: target: bytes of that file over the original's; None without.
    """

    data: Callable[[Path], TuneData | None]
    bounds: Mapping[str, float]
    speed: float
    cost_s: float | None = None
    lost: float = 0.01
    size: float | None = None


def cifar10(archive: Path, folder: Path) -> TuneData | None:
    """Return images of CIFAR-10 with their labels, where the archive is."""
    return tune_data.cifar10(archive, folder) if archive.is_file() else None


def cases(data: Path) -> dict[str, Case]:
    """Return what is asked of the models whose data is known, by the names of their files."""
    images = partial(cifar10, data / "cifar10-images.tar.xz")
    return {
        "efficientnet_lite0": Case(tune_data.imagenet, {"agreement": 0.96, "kl": 0.01}, 1.4, 300.0),
        "ppocr_v4_rec": Case(tune_data.text_lines, {"agreement": 0.97}, 1.2),
        "ppocr_v2_cls": Case(tune_data.text_directions, {"agreement": 0.99}, 1.3),
        "mlperf_tiny_vww96": Case(tune_data.wake_words, {"agreement": 0.99}, 1.3),
        "mlperf_tiny_resnet8": Case(images, {"accuracy": -0.003}, 1.35, 60.0, 0.01, 0.33),
    }


# -- a tune, as people run it -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tuned:
    """A model after its tune.

    Attributes:
        name: of its file.
        folder: of the run.
        front: what was measured.
        seconds: that the stages took.
    """

    name: str
    folder: Path
    front: TunedFront
    seconds: float


def tune(model: Path, data: TuneData, folder: Path, *, quick: bool, device: str = "ort") -> Tuned:
    """Run the command on a model.

    Args:
        device: what it is tuned for.

    Raises:
        RuntimeError: it fails; with what it said.
    """
    fast = ["--budget", "20s", "--count", "96"] if quick else []
    words = ["tune", str(model), "--data", data.source, *data.options, *fast]
    words += ["--device", device, "-o", str(folder)]
    command = [sys.executable, "-m", "nas.cli.main", *words]
    print(f"nas {shlex.join(words)}", flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{model.name}: {done.stderr.strip().splitlines()[-1]}")
    stages = read_document(folder / "timings.json", Timings).stages
    seconds = sum(taken for stage, taken in stages.items() if stage not in NOT_COUNTED)
    return Tuned(model.stem, folder, read_document(folder / "front.json", TunedFront), seconds)


# -- peers that are not always there -----------------------------------------------------------------


def nncf_default(content: bytes, samples: Samples) -> bytes:
    """Return what NNCF's post-training quantization makes of a file with its defaults.

    Raises:
        Exception: whatever it refuses.
    """
    import nncf  # only where it is installed
    import onnx

    logging.getLogger("nncf").setLevel(logging.ERROR)
    feeds = [samples.feed(row) for row in range(len(samples))]
    model = onnx.load_from_string(content)
    quantized = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds))
    return bytes(quantized.SerializeToString())


PEERS: Mapping[str, Callable[[bytes, Samples], bytes]] = {"nncf": nncf_default}


@dataclass(frozen=True)
class Peer:
    """A file that another tool made.

    Attributes:
        speed: times as fast as the original, in the same turns.
        metrics: by name, on unseen examples.
        size_bytes: of the file.
    """

    speed: float
    metrics: Mapping[str, float]
    size_bytes: float


def peers(tuned: Tuned) -> dict[str, Peer]:
    """Return the files of other tools that are installed and take the model."""
    there = {name: make for name, make in PEERS.items() if find_spec(name) is not None}
    if not there:
        return {}
    with tune_session(tuned.folder, {}, reporter=QUIET) as context:
        made = {}
        for name, make in there.items():
            try:
                made[name] = make(context.tuning.original, context.tuning.parts.calibration)
            except Exception as error:  # a peer that refuses has no column
                print(f"{tuned.name}: {name} does not take it: {str(error).splitlines()[:1]}")
        return _measured(context, made)


def _measured(context: TuneContext, files: Mapping[str, bytes]) -> dict[str, Peer]:
    everything, device = [context.tuning.original, *files.values()], context.files.device
    times = time_in_turns(device, everything, context.files.example, context.tuning.plan)[1:]
    judging = context.compared_on(context.tuning.parts.judging)
    result = {}
    for (name, content), time_ in zip(files.items(), times, strict=True):
        quality = judging.of_file(content)
        if time_.latency is None or quality.failed:
            print(f"{name}: {time_.error or quality.failed}")
            continue
        result[name] = Peer(1 / time_.latency.ratio, quality.metrics, float(len(content)))
    return result


# -- predictions of what a tune did not see -----------------------------------------------------------


def unseen_tau(tuned: Tuned) -> float:
    """Return the rank correlation of predicted and measured divergence of random policies that were not
    evaluated, after all that were.
    """
    with tune_session(tuned.folder, {}, reporter=QUIET) as context:
        measured = [entry.genes for entry in (*tuned.front.candidates, *tuned.front.evaluated)]
        every = np.concatenate([sampled_policies(context), np.array(measured, np.int16)])
        known = look_up(context, every[unique_rows(every)], context.clock.measured())
        rows = np.flatnonzero(np.isfinite(known.divergences))
        drawn = varied_policies(context.space, 4 * UNSEEN, rng=np.random.default_rng(UNSEEN))
        drawn = drawn[unique_rows(drawn)]
        unseen = drawn[~np.isin(row_keys(drawn), row_keys(known.genomes)) & ((drawn > 0).sum(axis=1) > 1)]
        unseen = unseen[:UNSEEN]
        comparison = context.compared_on(context.tuning.parts.choosing)
        qualities = [comparison.of_policy(policy_of(context.space, genome)) for genome in unseen]
        divergences = context.divergences(qualities)
        predicted = learned_quality(context, known, rows).predict(unseen).mean
    whole = np.isfinite(divergences)
    logs = np.log(np.maximum(divergences[whole], FLOOR))
    return float(kendalltau(predicted[whole], logs).statistic)


# -- figures -----------------------------------------------------------------------------------------


Entry = TunedNetwork | Reference


def value(part: PartQuality | None, name: str) -> float:
    """Return a metric on unseen examples; NaN where it is not known."""
    return part.metrics[name].value if part is not None and name in part.metrics else float("nan")


def speed(entry: Entry) -> float:
    """Return how many times as fast as the original a file is; NaN where it was not timed."""
    return 1 / entry.latency.ratio if entry.latency else float("nan")


def good_enough(front: TunedFront, bounds: Mapping[str, float], metrics: Mapping[str, float]) -> bool:
    """Return whether metrics are within bounds; a negative one is what may be lost of the original's."""
    directions = {metric.name: metric.direction for metric in front.metrics}
    for name, bound in bounds.items():
        least = bound if bound >= 0 else value(front.original.judging, name) + bound
        better = metrics.get(name, float("nan")) - least
        if not (better >= 0 if directions.get(name) == "max" else better <= 0):
            return False
    return True


def chosen(front: TunedFront, bounds: Mapping[str, float]) -> Entry:
    """Return the fastest file of a front that is good enough; the original where none is."""
    allowed = [n for n in front.candidates if good_enough(front, bounds, _metrics(n))]
    return max(allowed, key=speed, default=front.original)


def _metrics(entry: Entry) -> dict[str, float]:
    return {name: figure.value for name, figure in entry.judging.metrics.items()} if entry.judging else {}


def beaten(front: TunedFront) -> int:
    """Return how many pairs there are of a file on the front and a reference that is faster and better."""
    main, sign = front.metric, 1.0 if front.metric.direction == "max" else -1.0
    references = [r for r in (front.original, *front.references) if r.latency and r.judging]
    return sum(
        speed(r) > speed(n) and sign * value(r.judging, main.name) > sign * value(n.judging, main.name)
        for n in front.candidates
        for r in references
    )


def rows_of(tuned: Tuned, case: Case, others: Mapping[str, Peer]) -> list[Row]:
    """Return the figures of one model."""
    front, name = tuned.front, tuned.name
    best = chosen(front, case.bounds)
    references = {r.name: r for r in front.references if r.latency}
    names = [metric.name for metric in front.metrics]
    spread = best.latency.ratio_iqr / best.latency.ratio**2 if best.latency else 0.0
    speeds = {key: speed(r) for key, r in references.items()} | {key: p.speed for key, p in others.items()}
    within = ", ".join(f"{key} {bound:g}" for key, bound in case.bounds.items()) or "any quality"
    task = f"{name}: fastest file with {within}"
    rows = [Row(task, "speed", "x fp32", "higher", speed(best), spread, speeds, case.speed)]
    task = f"{name}: that file on unseen examples"
    if best.judging:
        rows.append(Row(task, "number", "examples", "higher", best.judging.samples, 0.0, {}))
    for metric in front.metrics:
        figure = best.judging.metrics.get(metric.name) if best.judging else None
        if figure is None:
            continue
        qualities = {key: value(r.judging, metric.name) for key, r in references.items()}
        qualities |= {key: peer.metrics.get(metric.name, math.nan) for key, peer in others.items()}
        qualities["fp32"] = value(front.original.judging, metric.name)
        better = "higher" if metric.direction == "max" else "lower"
        rows.append(Row(task, metric.name, metric.unit, better, figure.value, figure.std or 0.0, qualities))
    return [
        *rows,
        *_test_rows(tuned, case),
        *_size_rows(tuned, case, others, names),
        *cost_rows(tuned, case),
    ]


def _test_rows(tuned: Tuned, case: Case) -> list[Row]:
    """Return what the fastest file that is good enough gets right of all test images, where the tune judged
    on fewer of them.
    """
    best = chosen(tuned.front, case.bounds)
    if "accuracy" not in case.bounds or not isinstance(best, TunedNetwork):
        return []
    with tune_session(tuned.folder, {}, reporter=QUIET) as context:
        test = split_samples(context.tuning.samples, rng=np.random.default_rng(0)).judging
        judging = context.compared_on(test)
        policy = policy_of(context.space, np.array(best.genes, np.int16))
        ours = judging.of_policy(policy).metrics["accuracy"]
        original = judging.of_outputs(judging.original, 0.0).metrics["accuracy"]
    task = f"{tuned.name}: that file on all {len(test):,} test images"
    deviation = math.sqrt(ours * (1 - ours) / len(test))
    least = original + case.bounds["accuracy"]
    return [Row(task, "accuracy", "fraction", "higher", ours, deviation, {"fp32": original}, least)]


def _size_rows(tuned: Tuned, case: Case, others: Mapping[str, Peer], names: Sequence[str]) -> list[Row]:
    front = tuned.front
    share = "accuracy" if "accuracy" in names else "agreement"
    if share not in names:
        return []
    least = value(front.original.judging, share) - case.lost
    allowed = [n for n in front.candidates if value(n.judging, share) >= least]
    smallest = min((n.size_bytes for n in allowed), default=front.model.size_bytes)
    sizes = {r.name: r.size_bytes / front.model.size_bytes for r in front.references if r.size_bytes}
    sizes |= {name: peer.size_bytes / front.model.size_bytes for name, peer in others.items()}
    task = f"{tuned.name}: smallest file with at most {case.lost:.0%} of {share} lost"
    ours = smallest / front.model.size_bytes
    return [Row(task, "size", "of the fp32 file", "lower", ours, 0.0, sizes, case.size)]


def cost_rows(tuned: Tuned, case: Case) -> list[Row]:
    """Return what a tune took, and how far its predictions were off."""
    front, name = tuned.front, tuned.name
    both = [
        (entry.predicted["latency"].value, entry.latency.median_s)
        for entry in (*front.candidates, *front.evaluated)
        if entry.latency and "latency" in entry.predicted and entry.predicted["latency"].value
    ]
    rows = [
        Row(
            f"{name}: front against references",
            "pairs that a reference beats",
            "pairs",
            "lower",
            beaten(front),
            0.0,
            {},
            0,
        ),
        Row(f"{name}: whole tune", "time", "s", "lower", tuned.seconds, 0.0, {}, case.cost_s),
    ]
    task = f"{name}: quality of {UNSEEN} unseen random policies, {front.evaluations} evaluated"
    rows.append(Row(task, "Kendall tau", "1", "higher", unseen_tau(tuned), 0.0, {}, TAU))
    if len(both) > 1:
        predicted, measured = np.array(both, np.float64).T
        errors = 100 * np.abs(predicted / measured - 1)
        task = f"{name}: latency of {len(both)} policies, before they were timed"
        rows.append(Row(task, "MAPE", "%", "lower", float(errors.mean()), 0.0, {}, MAPE))
    return rows


# -- the command --------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    arguments = argument_parser(__doc__, seeds=1)
    arguments.add_argument(
        "--models", type=Path, nargs="+", metavar="FILE", help="ONNX files (default: all known)"
    )
    arguments.add_argument("--source", default="", help="`--data` of models that are not known")
    arguments.add_argument(
        "--options", default="", help="further options of `nas tune` for these, in one word"
    )
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="folder for runs and data, kept")
    return arguments


def main() -> None:
    """Tune every model, print and write."""
    arguments = parser().parse_args()
    known = cases(arguments.data)
    models = arguments.models or [arguments.data / "models" / f"{name}.onnx" for name in known]
    given = TuneData(arguments.source, tuple(shlex.split(arguments.options)))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, one_core():
        place = (arguments.keep or Path(name)).absolute()
        for model in models:
            case = known.get(model.stem) or Case(lambda folder: given, {}, 1.0)
            made = given if given.source else data_of(case, place / "data" / model.stem)
            if not model.is_file() or made is None or not made.source:
                print(f"{model}: left out: no such file, or no data for it")
                continue
            start = time.monotonic()
            tuned = tune(model.absolute(), made, place / "runs" / model.stem, quick=arguments.quick)
            rows += rows_of(tuned, case, peers(tuned))
            print(f"{model.stem}: {time.monotonic() - start:.0f} s", flush=True)
    report("tune", rows, arguments.json)


def data_of(case: Case, folder: Path) -> TuneData | None:
    """Return the data of a case, made once where its folder is kept; None where it is not here."""
    record = folder / "made.json"
    if record.is_file():
        said = json.loads(record.read_text())
        return TuneData(said["source"], tuple(said["options"]))
    made = case.data(folder / "examples")
    if made is not None and made.source:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"source": made.source, "options": made.options}))
    return made


if __name__ == "__main__":
    main()
