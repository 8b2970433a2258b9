"""The fastest schedule of each unit, found once per machine and kept on disk.

A folder holds one JSON file and one object file per unit. Both are written whole or not at all, the object's
name carries its hash, and what cannot be read is tuned anew: runs and processes may share a folder.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_atomic, write_json
from hw_profiles.graph.layer import Layer
from hw_profiles.reference.integer_ops import run_unit
from hw_profiles.reference.random_units import random_inputs, random_numbers
from hw_profiles.runtimes.tvm_cpu.compile import (
    Candidate,
    compile_candidates,
    link_shared,
    one_line,
    readable_name,
)
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.templates import VERSION, template_of
from hw_profiles.runtimes.tvm_cpu.unit import Argument, Array, CompiledUnit, Tile

SCHEMA = "tuning/1"
FP32_TOLERANCE = 1e-4  # of a real result, whose sums run in another order
WINDOW_S, WINDOWS, GROUPS = 1e-4, 5, 3  # how long a candidate is timed

# Runs a function of a library on its arguments, the last of which it writes: (that afterwards, seconds).
TrialRunner = Callable[[Path, str, Sequence[Array]], tuple[Array, float]]


@dataclass(frozen=True)
class Database:
    """Compiled units of one target, in files.

    Attributes:
        folder: may be shared by targets and versions; made when something is written.
    """

    folder: Path
    target: TvmTarget

    def load(self, layer: Layer, *, tuned: bool = False) -> CompiledUnit | None:
        """Return the unit, or None where it has not been compiled yet or a file of it is broken.

        Args:
            tuned: whether one of which only the first schedule was taken does not count.
        """
        try:
            entry = read_json(self._entry(layer), SCHEMA)
            path = self._folder / entry["object_file"]
            if tuned and not entry["tuned"]:
                return None
            if entry["unit"] != layer.key() or _digest(path.read_bytes()) != entry["object"]:
                return None
            arguments = tuple(Argument(tuple(shape), dtype) for shape, dtype in entry["arguments"])
            seconds = _seconds_of(entry["best"], entry["trials"])
            return CompiledUnit(entry["symbol"], arguments, Tile(**entry["best"]), path, seconds)
        except (TrilobitError, OSError, KeyError, TypeError, ValueError):
            return None

    def store(
        self, layer: Layer, best: Candidate, trials: Sequence[dict[str, Any]], *, tuned: bool
    ) -> CompiledUnit:
        """Keep `best`, and how all candidates did."""
        digest, tile = _digest(best.code), asdict(best.tile)
        path = self._folder / f"{best.symbol}-{digest[:12]}.o"
        write_atomic(path, best.code)
        entry = {
            "schema": SCHEMA,
            "unit": layer.key(),
            "target": self.target.name,
            "tvm": tvm.__version__,
            "template": VERSION,
            "tuned": tuned,
            "trials": list(trials),
            "best": tile,
            "symbol": best.symbol,
            "arguments": [[list(each.shape), each.dtype] for each in best.arguments],
            "object_file": path.name,
            "object": digest,
        }
        write_json(self._entry(layer), entry)
        return CompiledUnit(best.symbol, best.arguments, best.tile, path, _seconds_of(tile, trials))

    @property
    def _folder(self) -> Path:
        target = self.target.name.replace(" ", "").replace("=", "-")
        return self.folder / f"{target}-tvm-{tvm.__version__}-v{VERSION}"

    def _entry(self, layer: Layer) -> Path:
        return self._folder / f"{readable_name(layer)}.json"


def tune(
    layers: Iterable[Layer], database: Database, runner: TrialRunner | None
) -> Iterator[tuple[Layer, CompiledUnit | str]]:
    """Return every layer with its compiled unit, or with the reason why there is none; known ones are only
    loaded.

    Args:
        runner: times a candidate; without one the first schedule that compiles is taken, "tuned": false.
    """
    missing = []
    for layer in dict.fromkeys(layers):
        known = database.load(layer, tuned=runner is not None)
        if known is None:
            missing.append(layer)
        else:
            yield layer, known
    limit = None if runner else 1
    for layer, candidates in _compiled(missing, database.target, limit):
        yield layer, choose(layer, candidates, database, runner)


def _compiled(
    layers: Sequence[Layer], target: TvmTarget, limit: int | None
) -> Iterator[tuple[Layer, list[Candidate]]]:
    """Return candidates of all layers, compiled in a second thread while the first times them: LLVM and the
    timed loop both run without Python's lock.
    """
    with ThreadPoolExecutor(1) as pool:
        results = [pool.submit(compile_candidates, layer, target, limit) for layer in layers]
        try:
            for layer, result in zip(layers, results, strict=True):
                yield layer, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def choose(
    layer: Layer, candidates: Sequence[Candidate], database: Database, runner: TrialRunner | None
) -> CompiledUnit | str:
    """Store the fastest candidate that computes the right thing; a reason where there is none."""
    good = [each for each in candidates if each.error is None]
    trials = {each.symbol: _trial(each, error=each.error) for each in candidates}
    if runner and good:
        trials |= _timed(layer, good, database.target, runner)
        good = [each for each in good if "error" not in trials[each.symbol]]
        good.sort(key=lambda each: float(trials[each.symbol]["median_s"]))
    if not good:
        return str(next(iter(trials.values()))["error"])
    return database.store(layer, good[0], list(trials.values()), tuned=runner is not None)


def _timed(
    layer: Layer, candidates: Sequence[Candidate], target: TvmTarget, runner: TrialRunner
) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    numbers, inputs = random_numbers(layer, rng, sums=sums_of(target)), random_inputs(layer, rng)
    expected = run_unit(layer, numbers, inputs)
    trials = {}
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "candidates.so"
        objects = [Path(folder) / f"{i}.o" for i in range(len(candidates))]
        for path, candidate in zip(objects, candidates, strict=True):
            path.write_bytes(candidate.code)
        link_shared(target, list(map(str, objects)), library)
        for each in candidates:
            arrays = [*inputs, *template_of(layer).pack(layer, numbers, target, each.tile)]
            shaped = [a.reshape(b.shape) for a, b in zip(arrays, each.arguments, strict=False)]
            out = np.zeros(each.arguments[-1].shape, each.arguments[-1].dtype)
            try:
                outputs, median_s = runner(library, each.symbol, [*shaped, out])
            except TrilobitError:
                raise  # no board to try it on: says nothing about the candidate
            except Exception as error:  # a candidate that fails is only not chosen
                trials[each.symbol] = _trial(each, error=one_line(error))
                continue
            wrong = not agrees(outputs.reshape(expected.shape), expected)
            trials[each.symbol] = _trial(each, median_s, "computes something else" if wrong else None)
    return trials


def agrees(outputs: Array, expected: Array) -> bool:
    """Return whether a kernel's result is right: codes exactly, real values within `FP32_TOLERANCE`."""
    if np.issubdtype(expected.dtype, np.integer):
        return bool(np.array_equal(outputs, expected))
    return bool(np.allclose(outputs, expected, rtol=FP32_TOLERANCE, atol=FP32_TOLERANCE))


def _seconds_of(tile: Mapping[str, int], trials: Iterable[Mapping[str, Any]]) -> float | None:
    """Return what a schedule took when it was tried out."""
    return next((trial.get("median_s") for trial in trials if trial["tile"] == tile), None)


def _trial(candidate: Candidate, median_s: float | None = None, error: str | None = None) -> dict[str, Any]:
    what = {"median_s": median_s} if error is None else {"error": error}
    return {"tile": asdict(candidate.tile), **what}


def run_locally(library: Path, symbol: str, arrays: Sequence[Array]) -> tuple[Array, float]:
    """Run a function on this machine: (its last argument afterwards, seconds).

    The seconds are the least of a few medians: other programs only ever add to a time.
    """
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    return try_out(tvm.runtime.load_module(str(library)), symbol, tensors)


def try_out(module: Any, symbol: str, tensors: Sequence[Any]) -> tuple[Array, float]:
    """Run the same where a library and tensors were loaded."""
    device = tensors[0].device
    module[symbol](*tensors)
    output: Array = tensors[-1].numpy()
    once_s = module.time_evaluator(symbol, device, number=3, repeat=1)(*tensors).mean
    count = max(1, round(WINDOW_S / max(once_s, 1e-9)))
    evaluator = module.time_evaluator(symbol, device, number=count, repeat=WINDOWS)
    medians = [float(np.median(evaluator(*tensors).results)) for _ in range(GROUPS)]
    return output, min(medians)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
