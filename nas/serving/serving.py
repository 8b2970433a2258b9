"""What a model does in service: single calls timed by the wall, in turns between the settings, so that a
disturbance meets all of them. Runs in a process of its own (`nas.checks.confined`); imports no torch.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import parse
from hw_profiles.errors import one_line
from hw_profiles.graph.layer import MATRIX
from hw_profiles.measure.interleave import Timed
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Executable, TensorInfo
from nas.checks.examples import ExampleInput, made_up
from nas.export.library.library import LibraryExecutable
from nas.export.library.tuned import requested_library
from nas.serving.decoders import Decoder, read_decoder, scenarios, tokens_of
from nas.serving.given import example_for, opened_by
from supernet.data.kinds import examples_called

PERCENTILES = (50, 90, 95, 99)
WARM_UP_RUNS = 5
IMAGE_RANK = 4
TURN_S = 0.1  # how long one setting runs before the next has its turn
Answer = tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]


class Setting(NamedTuple):
    """What one inference is.

    Attributes:
        threads: of one inference.
        batch: examples of one inference; sequences of a decoder.
        scenario: of a decoder, `prefill of N` or `decode at P`; empty of all others.
    """

    threads: int
    batch: int
    scenario: str = ""


Calls = Mapping[Setting, Timed]  # inferences by the wall


@dataclass(frozen=True)
class Serving:
    """What one setting does.

    Attributes:
        threads: of one inference.
        batch: examples of one inference; sequences of a decoder.
        calls: timed.
        percentiles_s: of the time of a call, by the percentile.
        rate_per_s: what is counted over the time of all calls.
        scenario: of a decoder, `prefill of N` or `decode at P`; empty of all others.
        counted: images, texts, or else examples; tokens of a decoder, of a prompt or the next ones.
    """

    threads: int
    batch: int
    calls: int
    percentiles_s: Mapping[str, float]
    rate_per_s: float
    scenario: str = ""
    counted: str = "examples"


def serve_file(request: Mapping[str, Any]) -> Answer:
    """Return what the ONNX file at `path` does on `device` for `seconds`, on each of `threads` with each of
    `batches`, or on the arrays of the file `inputs`, or on an example of what it is `made_up` of.

    Raises:
        ValueError: it is made for another number of examples, leaves more open than that, or reads other
            arrays.
    """
    model, device = Path(request["path"]).read_bytes(), request["device"]
    opened = {threads: _opened(model, device, threads) for threads in request["threads"]}
    first = next(iter(opened.values()))
    if request["inputs"] is not None or request["made_up"]:
        example = (
            made_up(parse(tuple[ExampleInput, ...], request["made_up"]), 0)
            if request["inputs"] is None
            else example_for(first, Path(request["inputs"]))
        )
        items = len(np.atleast_1d(next(iter(example.values()))))
        calls = {Setting(t, items): opened[t].timed("wall", example=example) for t in opened}
    elif (decoder := read_decoder(model)) is not None:
        calls = _decoding(decoder, opened, request)
    else:
        if (request.get("prefill"), request.get("decode")) != (None, None):
            raise ValueError("--prefill and --decode are of decoders with a key-value cache, which it is not")
        settings = itertools.product(opened, _batches(first, request["batches"]))
        calls = {Setting(t, batch): opened[t].timed("wall", batch=batch) for t, batch in settings}
    return _plain(serve(calls, seconds=request["seconds"], counted=_called(first.inputs)))


def _decoding(
    decoder: Decoder, opened: Mapping[int, Executable], request: Mapping[str, Any]
) -> dict[Setting, Timed]:
    """Return a decoder's inferences in each scenario.

    Raises:
        ValueError: it is made for other sizes, or cannot run them.
    """
    batches = request["batches"] or (decoder.batch or 1,)
    feeds = scenarios(decoder, batches, request.get("prefill"), request.get("decode"))
    calls = {}
    for threads, executable in opened.items():
        for (scenario, batch), example in feeds.items():
            calls[Setting(threads, batch, scenario)] = call = executable.timed("wall", example=example)
            try:
                call(1)
            except Exception as error:
                raise ValueError(
                    f"{scenario} (if it has fewer positions, ask for less: --prefill N, --decode P): "
                    f"{one_line(error)}"
                ) from None
    return calls


def _opened(model: bytes, device: Mapping[str, Any], threads: int) -> Executable:
    """Return the file on a device with so many threads, where it has that option."""
    choice = choose(device["name"], device["options"])
    if "threads" in choice.kind.table:
        choice = choose(device["name"], {**device["options"], "threads": threads})
    runtime = choice.open().runtime
    assert runtime is not None
    return opened_by(runtime, model)


def _batches(executable: Executable, requested: Sequence[int] | None) -> Sequence[int]:
    if unbound := [info.name for info in executable.inputs if None in info.shape[1:]]:
        raise ValueError(
            f"it leaves sizes of {', '.join(unbound)} open; give what it reads with --inputs FILE.npz"
        )
    size = executable.inputs[0].shape[0] if executable.inputs[0].shape else None
    if size is None:
        return requested or (1,)
    if requested is not None and set(requested) != {size}:
        raise ValueError(
            f"made for {size} examples at once, asked for {','.join(map(str, requested))}; "
            "`nas export --dynamic-batch` makes files for any number"
        )
    return (size,)


def serve_library(request: Mapping[str, Any]) -> Answer:
    """Return what the library at `path` does for `seconds`, an example at a time, random or the arrays of the
    file `inputs`: an image of `shape` (h, w, c), or what the `signature` of a tuned network says.

    Raises:
        ValueError: it reads other arrays.
    """
    tuned = "signature" in request
    library: Executable = requested_library(request) if tuned else LibraryExecutable.of(request)
    path = request.get("inputs")
    return _plain(serve_one(library, None if path is None else Path(path), seconds=request["seconds"]))


def serve_one(library: Executable, inputs: Path | None, *, seconds: float) -> list[Serving]:
    """Return what a library does, an example at a time.

    Args:
        inputs: an .npz file of what it reads; None takes random numbers.

    Raises:
        ValueError: it reads other arrays.
    """
    example = None if inputs is None else example_for(library, inputs)
    calls = {Setting(1, 1): library.timed("wall", example=example)}
    return serve(calls, seconds=seconds, counted=_called(library.inputs))


def _plain(served: Sequence[Serving]) -> Answer:
    return [asdict(serving) for serving in served], {}


def serve(calls: Calls, *, seconds: float, counted: str) -> list[Serving]:
    """Time every call for `seconds`, in turns; `counted` is what to call examples. What asking a board takes
    counts among the seconds.
    """
    for call in calls.values():
        call(WARM_UP_RUNS)
    times: list[list[float]] = [[] for _ in calls]
    turns_s, each_s = 0.0, min(TURN_S, seconds)
    while turns_s < seconds:
        for call, taken in zip(calls.values(), times, strict=True):
            call(1)  # the one before had the caches
            turn = time.perf_counter() + each_s
            while not taken or time.perf_counter() < turn:
                taken.append(call(1))
        turns_s += each_s
    return [_serving(setting, np.array(taken), counted) for setting, taken in zip(calls, times, strict=True)]


def _serving(setting: Setting, taken_s: NDArray[np.float64], counted: str) -> Serving:
    percentiles_s = {str(p): float(np.percentile(taken_s, p)) for p in PERCENTILES}
    items = setting.batch * tokens_of(setting.scenario)
    rate_per_s = float(items * len(taken_s) / max(taken_s.sum(), 1e-12))
    return Serving(
        setting.threads,
        setting.batch,
        len(taken_s),
        percentiles_s,
        rate_per_s,
        setting.scenario,
        "tokens" if setting.scenario else counted,
    )


def _called(inputs: Sequence[TensorInfo]) -> str:
    """Return what to call examples of a model, by the first tensor that it reads: images have four
    dimensions, texts are rows of whole numbers.
    """
    read = inputs[0] if inputs else None
    if read is not None and len(read.shape) == IMAGE_RANK and len(inputs) == 1:
        return examples_called("images")
    if read is not None and len(read.shape) == MATRIX and np.dtype(read.dtype).kind == "i":
        return examples_called("tokens")
    return examples_called(None)
