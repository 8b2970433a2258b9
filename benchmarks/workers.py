"""What more workers of a cluster buy, on Dask itself.

Three parts, chosen with `--part`:

- `device`: one against two worker processes where evaluations wait for a device: they sleep for as long as
  timing a finalist was recorded to take. Three rounds of 24 finalists, as `nas search` asks for them.
- `compute`: one against two worker processes that evaluate networks of a trained run (`--run`).
- `simulated`: one to sixteen workers, threads of this process under a scheduler of its own, that sleep for
  recorded times: samples in batches of 20 as `nas sample` asks for them, and finalists in rounds of 24, with
  a device for each worker.

Only the work is simulated: scheduling, transfer and storage (SQLite) are real. `--record RUN` times
evaluations of a trained run anew, in this process, and writes `evaluation_times.json`. `--scale`
shortens all sleeps. Repeats take turns; a speed-up is the median of one worker's time over that of several.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, argument_parser, interquartile_range, machine, report
from numpy.typing import NDArray

from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator, turns
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.evaluation.store import EvaluationStore, Result
from nas.evaluation.study import Study
from nas.run.cluster import Cluster
from nas.run.run import Run, find_run
from nas.search.objectives import objective
from supernet.families.family import load_family
from supernet.space.space import Candidate

TIMES = Path(__file__).with_name("evaluation_times.json")
RECORDED = 24  # evaluations of each kind
ROUNDS, FINALISTS, SAMPLES, BATCH = 3, 24, 200, 20  # what a default run asks for
QUICK = 6  # times fewer
WORKERS = (1, 2, 4, 8, 16)
TARGET = 1.8  # of two workers where evaluations wait
Floats = NDArray[np.float64]


# -- recorded times ------------------------------------------------------------------------------------


def record(run: Run) -> dict[str, Any]:
    """Return the seconds of evaluations of random networks of a trained run, one by one in this process."""
    space, builder = run.family.space(), NetworkBuilder(run)
    drawn = [space.candidate(genome) for genome in space.sample(RECORDED + 1, rng=np.random.default_rng(0))]
    supernet, device = SupernetEvaluator(builder), DeviceEvaluator(builder)
    supernet.simulate(drawn[0])  # what is loaded once
    device.answer(drawn[0])
    timed = [seconds_of(partial(device.time, group)) / len(group) for group in turns(drawn[1:], 1)]
    return {
        "run": f"{run.config.space.name} on {run.device.describe().name}",
        "date": date.today().isoformat(),
        "machine": machine(),
        "sample_s": [seconds_of(partial(supernet.simulate, candidate)) for candidate in drawn[1:]],
        "answer_s": [seconds_of(partial(device.answer, candidate)) for candidate in drawn[1:]],
        "timing_s": np.repeat(timed, RECORDED // len(timed)).tolist(),
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# -- work --------------------------------------------------------------------------------------------------


def sleep(seconds: float) -> float:
    """Wait, on a worker, as for a device."""
    time.sleep(seconds)
    return seconds


def asked(times_s: Sequence[float], count: int, batch: int) -> list[Floats]:
    """Return recorded times of `count` evaluations, in batches of which each waits for the one before."""
    drawn = np.random.default_rng(0).choice(times_s, count)
    return [drawn[start : start + batch] for start in range(0, count, batch)]


def replay(cluster: Cluster, batches: Sequence[Floats], *, grouped: bool) -> float:
    """Return the seconds that evaluations take which sleep, their results kept in a storage as a run's are.

    Args:
        grouped: whether several are measured in turns by one worker, as finalists are.
    """
    space = load_family("digits-mbconv", in_channels=1, classes=10).space()
    drawn = iter(space.sample(sum(map(len, batches)), rng=np.random.default_rng(1)))
    with tempfile.TemporaryDirectory() as folder:
        url, objectives = f"sqlite:///{folder}/run.db", [objective("accuracy")]
        store = EvaluationStore(url, "sleeps", space, objectives, decisions=False)
        start = time.perf_counter()
        for batch in batches:
            seconds = {space.candidate(next(drawn)): float(each) for each in batch}

            def evaluate(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
                groups = (
                    turns(candidates, cluster.count(measuring=True)) if grouped else [[c] for c in candidates]
                )
                items = [sum(seconds[c] for c in group) for group in groups]  # noqa: B023 used within the loop
                for i, _ in cluster.answers(sleep, items, measuring=True):
                    for candidate in groups[i]:
                        yield candidate, ({"accuracy": 0.5}, {})

            list(Study("sleeps", lambda: store, evaluate, None).results([*seconds]))
        return time.perf_counter() - start


@contextmanager
def workers(count: int, *, processes: bool) -> Iterator[Cluster]:
    """Yield a cluster of so many workers, each of which may measure."""
    from distributed import LocalCluster

    options: dict[str, Any] = {
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "memory_limit": None,
    }
    with LocalCluster(n_workers=count, processes=processes, resources={"device": 1}, **options) as running:
        running.wait_for_workers(count)
        with Cluster(running.scheduler_address) as cluster:
            cluster.require_workers(measuring=True)
            yield cluster


# -- parts -------------------------------------------------------------------------------------------------


def speed_up(task: str, seconds: dict[int, list[float]], count: int, target: float | None = None) -> Row:
    """Return how much faster so many workers are than one, by neighbouring repeats."""
    ratios = np.array(seconds[1]) / np.array(seconds[count])
    peers = {f"{n}, s": float(np.median(seconds[n])) for n in (1, count)}
    return Row(
        task,
        f"{count} workers over 1",
        "x",
        "higher",
        float(np.median(ratios)),
        interquartile_range(ratios),
        peers,
        target,
    )


def in_turns(counts: Sequence[int], repeats: int, measure: Callable[[int], float]) -> dict[int, list[float]]:
    """Return the seconds of every number of workers, repeats taking turns."""
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            seconds[count].append(measure(count))
    return seconds


def waiting(times: dict[str, Any], *, repeats: int, quick: int) -> Iterator[Row]:
    """One and two processes that wait for a device."""
    batches = asked(times["timing_s"], ROUNDS * FINALISTS // quick, FINALISTS)

    def measure(count: int) -> float:
        with workers(count, processes=True) as cluster:
            return replay(cluster, batches, grouped=True)

    seconds = in_turns((1, 2), repeats, measure)
    yield speed_up(f"finalists that wait for a device, {times['run']}", seconds, 2, TARGET)


def computing(run: Run, *, repeats: int, quick: int) -> Iterator[Row]:
    """One and two processes that evaluate networks."""
    space, count = run.family.space(), 48 // quick

    def measure(count_workers: int) -> float:
        with tempfile.TemporaryDirectory() as folder, Cluster(f"local:{count_workers}") as cluster:
            drawn = [space.candidate(g) for g in space.sample(count + 8, rng=np.random.default_rng(0))]
            there = Run(run.folder, run.config, cluster=cluster)
            evaluator = SupernetEvaluator(NetworkBuilder(there))
            store = partial(
                EvaluationStore,
                f"sqlite:///{folder}/run.db",
                "samples",
                space,
                [objective(evaluator.builder.metric)],
                decisions=False,
            )
            study = Study("samples", store, evaluator.sampling.evaluate, None)
            list(study.results(drawn[count:]))  # every worker opens the run
            return seconds_of(lambda: list(study.results(drawn[:count])))

    seconds = in_turns((1, 2), repeats, measure)
    yield speed_up(f"samples that compute, {run.config.space.name}", seconds, 2)


def simulated(times: dict[str, Any], *, repeats: int, quick: int) -> Iterator[Row]:
    """One to sixteen workers that sleep."""
    parts = {
        f"samples in batches of {BATCH}": (asked(times["sample_s"], SAMPLES // quick, BATCH), False),
        f"finalists in rounds of {FINALISTS}": (
            asked(times["timing_s"], ROUNDS * FINALISTS // quick, FINALISTS),
            True,
        ),
    }
    for task, (batches, grouped) in parts.items():

        def measure(count: int) -> float:
            with workers(count, processes=False) as cluster:
                return replay(cluster, batches, grouped=grouped)  # noqa: B023 used within the loop

        seconds = in_turns(WORKERS, repeats, measure)
        for count in WORKERS[1:]:
            yield speed_up(f"{task}, {times['run']}", seconds, count)


def main() -> None:
    """Measure, print and write."""
    parser = argument_parser(__doc__, seeds=3)
    parser.add_argument(
        "--part", action="append", choices=("device", "compute", "simulated"), help="default: all"
    )
    parser.add_argument("--run", type=Path, metavar="RUN", help="a trained run, for `compute`")
    parser.add_argument(
        "--record", type=Path, metavar="RUN", help="a trained run whose evaluations are timed"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="of recorded times, to sleep")
    arguments = parser.parse_args()
    if arguments.record:
        TIMES.write_text(json.dumps(record(find_run(arguments.record)), indent=1) + "\n")
    times = json.loads(TIMES.read_text())
    for kind in ("sample_s", "timing_s"):
        times[kind] = [arguments.scale * seconds for seconds in times[kind]]
    effort = {"repeats": 1 if arguments.quick else arguments.seeds, "quick": QUICK if arguments.quick else 1}
    parts = arguments.part or ("device", "compute", "simulated")
    rows: list[Row] = []
    if "device" in parts:
        rows += waiting(times, **effort)
    if "compute" in parts and arguments.run:
        rows += computing(find_run(arguments.run), **effort)
    if "simulated" in parts:
        rows += simulated(times, **effort)
    report("workers", rows, arguments.json)


if __name__ == "__main__":
    main()
