"""What every benchmark shares: arguments, one pinned core, interleaved timing, a table and a JSON file."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from hw_profiles.measure.host import cpu_model, instruction_set

SCHEMA = "benchmark/1"
Key = TypeVar("Key", bound=Hashable)

PACKAGES = ("numpy", "torch", "scikit-learn", "pymoo", "optuna", "onnxruntime", "moocore")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        task: what was done.
        metric, unit: what was measured.
        better: which way is better.
        ours: median over repeats or seeds.
        spread: interquartile range over the same.
        peers: name -> the same figure of another implementation, in the same run.
        target: what we set out to reach; None where nothing was set.
    """

    task: str
    metric: str
    unit: str
    better: Literal["higher", "lower"]
    ours: float
    spread: float
    peers: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None


@dataclass(frozen=True)
class Arguments:
    """`--data DIR`, `--seeds N`, `--quick`, `--json OUT`."""

    data: Path
    seeds: int
    quick: bool
    json: Path | None


def argument_parser(description: str | None, *, seeds: int) -> argparse.ArgumentParser:
    """Return the parser that every benchmark has; `seeds` is the default of `--seeds`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(__file__).parents[1] / "../shared/data"
    parser.add_argument(
        "--data", type=Path, default=data, metavar="DIR", help="published data (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help="repeats or seeds (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="small and noisy: only shows that it runs")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file")
    return parser


def parse_arguments(description: str | None, *, seeds: int) -> Arguments:
    """Parse the command line that every benchmark has."""
    return Arguments(**vars(argument_parser(description, seeds=seeds).parse_args()))


@contextmanager
def one_core() -> Iterator[int]:
    """Run on one core, with one thread in every library; gives the core's number."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield core
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, allowed)


def interleaved_s(tasks: Mapping[Key, Callable[[], object]], repeats: int) -> dict[Key, np.ndarray]:
    """Measure seconds (repeats,) of every task, after one warm-up each.

    Tasks take turns, so that a slow spell of the machine meets all of them.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(samples) for name, samples in seconds.items()}


def interquartile_range(samples: np.ndarray) -> float:
    """Return the upper minus the lower quartile."""
    lower, upper = np.percentile(samples, [25, 75])
    return float(upper - lower)


def machine() -> dict[str, object]:
    """Describe the machine that figures come from."""
    return {
        "cpu": cpu_model(),
        "instruction_set": instruction_set(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_1min": os.getloadavg()[0],
    }


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def report(benchmark: str, rows: Sequence[Row], out: Path | None, instructions: str | None = None) -> None:
    """Print a table and, with `out`, write it as schema `benchmark/1`.

    Args:
        instructions: which ones the figures are of, where those are not the best that the processor has.
    """
    table = Table("task", "metric", "ours", "spread", "peers", "target", title=benchmark)
    for row in rows:
        peers = "\n".join(f"{name}: {_readable(value)}" for name, value in row.peers.items())
        target = "" if row.target is None else _readable(row.target)
        metric = f"{row.metric}, {row.unit} ({row.better} is better)"
        table.add_row(row.task, metric, _readable(row.ours), _readable(row.spread), peers, target)
    Console().print(table)
    if out:
        versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        document = {
            "schema": SCHEMA,
            "benchmark": benchmark,
            "date": date.today().isoformat(),
            "machine": machine() | ({"instruction_set": instructions} if instructions else {}),
            "versions": versions,
            "rows": [asdict(row) for row in rows],
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document, indent=2) + "\n")
