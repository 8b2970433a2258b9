"""How well the time of a model in any policy is predicted: number formats by unit, on ONNX Runtime, one core.

Learns as `nas tune` does: from the kernels of a few files and from whole files of random policies. Judged on
other random policies that are measured beside them in two sets of sessions. Peers, all in the same run: sums
of units replaced alone (each unit in int8 with all others in fp32, measured), a ridge on units and the number
of conversions, a ridge on the same terms as ours, both fitted to the same policies as ours, and what the
second set of sessions says of the first.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, one_core, report
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.rewrite_onnx import rewrite
from nas.emit.unit_formats import unit_formats
from nas.run.tune_config import parse_shape
from nas.tune.policies.random_policies import random_policies
from nas.tune.policies.space import policy_of, policy_space, single_genomes
from nas.tune.setup.files import kernel_of
from nas.tune.timing.batches import Effort
from nas.tune.timing.latency import PolicyTimer, learn, learn_latency
from nas.tune.timing.policy_times import PolicyTimes
from predictors.latency.policy_terms import PolicyTerms
from supernet.data.samples import Samples
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from supernet.ptq.quantization import Quantization
from supernet.ptq.quantize_model import quantize_model
from supernet.space.space import Genomes, SearchSpace

# files of the published data, and sizes of what they leave open
MODELS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "efficientnet_lite0": {},
    "mlperf_tiny_resnet8": {},
    "mlperf_tiny_vww96": {},
    "ppocr_v4_rec": {"x": (1, 3, 48, 320)},
}
LARGEST_MAPE, LEAST_TAU = 0.03, 0.97
SAMPLES = 4  # random ones: ranges of tensors change no time
PENALTIES = np.geomspace(1e-4, 1e4, 25)
CURVE = 0.25, 0.5  # shares of the policies that ours is fitted to besides

Floats = NDArray[np.float64]
Predict = Callable[[Genomes], Floats]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a model's policies.

    Attributes:
        timer: of the model.
        learned: policies that are learned from, with the times of kernels.
        learned_s: how long measuring them took.
        alone: every unit replaced alone.
        tested: other policies (n, g).
        first_s, second_s: their times (n,) in two sets of sessions.
        load: of the machine in the end.
    """

    timer: PolicyTimer
    learned: PolicyTimes
    learned_s: float
    alone: PolicyTimes
    tested: Genomes
    first_s: Floats
    second_s: Floats
    load: float

    @property
    def seconds(self) -> Floats:
        """(n,) the tested policies' times."""
        return (self.first_s + self.second_s) / 2


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument(
        "--model", type=Path, action="append", metavar="FILE", help="an ONNX file (default: published ones)"
    )
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=SIZES", help="of open inputs")
    parser.add_argument("--formats", default="int8", metavar="A,B", help="default: %(default)s")
    parser.add_argument("--budget", type=float, default=60.0, metavar="S", help="of learning, for each model")
    parser.add_argument("--tested", type=int, default=60, metavar="N", help="policies judged on")
    arguments = parser.parse_args()
    shapes = dict(map(parse_shape, arguments.shape))
    files = {path.stem: (path, shapes) for path in arguments.model or ()} or {
        name: (arguments.data / "models" / f"{name}.onnx", sizes) for name, sizes in MODELS.items()
    }
    budget_s, tested = (8.0, 12) if arguments.quick else (arguments.budget, arguments.tested)
    rows: list[Row] = []
    for name, (path, sizes) in files.items():
        with one_core() as core:
            model = import_onnx(path, shapes=sizes)
            timer = timer_of(model, arguments.formats.split(","), core)
            measured = measure(timer, budget_s, tested)
        rows += rows_of(name, measured)
    report("policy_latency", rows, arguments.json)


def timer_of(model: ImportedModel, formats: list[str], core: int) -> PolicyTimer:
    """Return what times the policies of a model, quantized on random numbers."""
    device = open_device("ort")
    assert isinstance(device, MeasuredDevice)
    allowed = unit_formats(model, device.runtime)
    by_unit = {name: [f for f in unit.allowed if f in formats] for name, unit in allowed.items()}
    samples = random_samples(model)
    quantization = quantize_model(model, samples, by_unit, rng=np.random.default_rng(0))
    space = policy_space(model, by_unit)
    if not space.choices:
        raise TrilobitError(f"no unit of the model can take {', '.join(formats)}")
    plan = plan_on(MeasurePlan(core=core), device.runtime.clock)
    write = writer(space, quantization, samples)
    return PolicyTimer(device, PolicyTerms.of(space, quantization.model, kernel_of), write, plan)


def random_samples(model: ImportedModel) -> Samples:
    """Return numbers of each input's type; whole ones are 0 or 1, which any table has."""
    rng = np.random.default_rng(0)
    return Samples(
        {
            name: rng.integers(0, 2, (SAMPLES, *model.shapes[name])).astype(model.dtypes[name])
            if np.issubdtype(np.dtype(model.dtypes[name]), np.integer)
            else rng.random((SAMPLES, *model.shapes[name]), np.float32).astype(model.dtypes[name])
            for name in model.inputs
        }
    )


def writer(space: SearchSpace, quantization: Quantization, samples: Samples) -> Callable[[Genomes], Artifact]:
    """Return what writes the file of a policy."""
    example = samples.feed(0)
    return lambda genome: Artifact(rewrite(quantization, policy_of(space, genome)), example=example)


def measure(timer: PolicyTimer, budget_s: float, tested: int) -> Measured:
    """Measure what is learned from, every unit alone, and what is judged on."""
    space, model = timer.terms.space, timer.terms.model
    efforts: list[Effort] = []
    begun = time.monotonic()
    learned = learn_latency(
        timer, budget_s=budget_s, rng=np.random.default_rng(0), on_effort=efforts.append
    ).times
    learned_s = time.monotonic() - begun
    careful = replace(efforts[0], rounds=2 * efforts[0].rounds)
    empty = replace(learned, batches=(), policies=(), kernels=())
    alone = timer.measure(empty, single_genomes(space), careful)
    drawn = random_policies(space, model, 3 * tested, rng=np.random.default_rng(1))
    others = learned.missing(drawn)[:tested]
    first, second = (timer.measure(empty, others, careful, again=True) for _ in range(2))
    seconds = [seconds_of(times, others) for times in (first, second)]
    return Measured(timer, learned, learned_s, alone, others, *seconds, os.getloadavg()[0])


def seconds_of(times: PolicyTimes, genomes: Genomes) -> Floats:
    """Return the times (n,) of policies (n, g) that were all measured."""
    rows, seconds = times.rows()
    by_genes = {tuple(row): s for row, s in zip(rows.tolist(), seconds.tolist(), strict=True)}
    return np.array([by_genes[tuple(row)] for row in genomes.tolist()])


def rows_of(name: str, measured: Measured) -> Iterator[Row]:
    """Yield the figures of a model."""
    timer, true_s, tested = measured.timer, measured.seconds, measured.tested
    predicted = {who: predict(tested) for who, predict in predictors(measured).items()}
    again = measured.second_s
    prediction = learn(measured.learned, timer.terms).predict(tested)
    task = f"{name}, policies not learned from"
    figures: list[tuple[str, str, str, Callable[[Floats, Floats], float], float]] = [
        ("MAPE", "fraction", "lower", mape, LARGEST_MAPE),
        ("Kendall tau", "tau", "higher", tau, LEAST_TAU),
    ]
    for metric, unit, better, figure, target in figures:
        peers = {who: figure(s, true_s) for who, s in predicted.items()}
        peers["measured again"] = figure(again, measured.first_s)
        spread = figure(again, measured.first_s) if metric == "MAPE" else 0.0
        yield Row(task, metric, unit, better, figure(prediction.mean, true_s), spread, peers, target)  # type: ignore[arg-type]
    inside = float(np.mean(np.abs(prediction.mean - true_s) <= 1.645 * prediction.std))
    spread_of = float(np.std(true_s) / np.mean(true_s))
    told = {
        "load": measured.load,
        "relative spread of the policies' times": spread_of,
        "policies": float(len(tested)),
    }
    yield Row(task, "inside the 90 % interval", "fraction", "higher", inside, 0.0, told)
    policies = float(len(measured.learned.policies))
    yield Row(task, "time to learn", "s", "lower", measured.learned_s, 0.0, {"policies measured": policies})


def predictors(measured: Measured) -> dict[str, Predict]:
    """Return others who predict, by name; and ours from fewer policies."""
    terms, (genomes, seconds) = measured.timer.terms, measured.learned.rows()
    space, original_s = terms.space, measured.alone.original_s
    others: dict[str, Predict] = {"replaced-alone sums": replaced_alone(measured)}

    def simple(rows: Genomes) -> NDArray[np.float32]:
        present = terms(rows)
        conversions = present[:, [term.converts for term in terms.terms]].sum(axis=1, keepdims=True)
        return np.hstack([space.one_hot(rows), conversions])

    features = {"ridge on units and conversions": simple, "ridge on our terms": terms.__call__}
    for who, encode in features.items():
        ridge = RidgeCV(PENALTIES).fit(encode(genomes), seconds / original_s)
        others[who] = lambda rows, ridge=ridge, encode=encode: original_s * ridge.predict(encode(rows))
    for share in CURVE:
        count = round(share * len(measured.learned.policies))
        some = replace(measured.learned, policies=measured.learned.policies[:count])
        others[f"ours from {count} policies"] = learn(some, terms).seconds
    return others


def replaced_alone(measured: Measured) -> Predict:
    """Return sums of what each unit adds when it alone is not in fp32."""
    space, original_s = measured.timer.terms.space, measured.alone.original_s
    added: list[Floats] = [np.zeros(len(choice.options)) for choice in space.choices]
    singles = single_genomes(space)
    for row, seconds in zip(singles, seconds_of(measured.alone, singles).tolist(), strict=True):
        [column] = np.flatnonzero(row)
        added[column][row[column]] = seconds - original_s

    def predict(genomes: Genomes) -> Floats:
        sums = [costs[genomes[:, column]] for column, costs in enumerate(added)]
        return original_s + np.sum(sums, axis=0)

    return predict


def mape(predicted: Floats, true: Floats) -> float:
    """Return the mean absolute error as a fraction."""
    return float(np.mean(np.abs(predicted / true - 1)))


def tau(predicted: Floats, true: Floats) -> float:
    """Return Kendall's tau-b."""
    return float(kendalltau(predicted, true).statistic)


if __name__ == "__main__":
    main()
