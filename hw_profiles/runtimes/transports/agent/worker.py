"""The process that runs and times files: one request after the other, until there are no more. What ends it
(an engine that crashes) ends nothing else.
"""

from __future__ import annotations

import base64
import io
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hw_profiles.measure.energy import EnergyError, find_meter, joules_of
from hw_profiles.runtimes.transports.agent.conditions import Board
from hw_profiles.runtimes.transports.agent.engines import engine_of
from hw_profiles.runtimes.transports.agent.lock import held
from hw_profiles.runtimes.transports.agent.messages import AgentError, Reader, Writer, one_line, parse
from hw_profiles.runtimes.transports.agent.store import Store
from hw_profiles.runtimes.transports.agent.timing import (
    LEARNING_S,
    Reference,
    Watch,
    interleaved,
    pinned,
    timed,
)

GPU_PROVIDERS = ("CUDA", "Tensorrt", "NvTensorRT")  # of ONNX Runtime: their energy is the card's
OPEN = 4  # files that stay open between requests
ANSWERED = b"."


class Worker:
    """Answers requests.

    Args:
        scratch: folder for files that engines write.
        lock: file that is locked while something runs, timed or not.
        learning_s: to learn how long the reference workload usually takes.
    """

    def __init__(
        self, writer: Writer, store: Store, scratch: str, lock: str, learning_s: float = LEARNING_S
    ) -> None:
        self._learning_s = learning_s
        self._writer, self._store, self._scratch, self._lock = writer, store, scratch, lock
        self._board = Board()
        self._engines = {}  # type: dict[str, Any]
        self._opened = OrderedDict()  # type: OrderedDict[str, Any]
        self._references = {}  # type: dict[int, Reference]
        self._meters = {}  # type: dict[bool, Any]

    def answer(self, request: Mapping[str, Any]) -> None:
        """Answer one request.

        Raises:
            AgentError: it cannot be.
        """
        functions = {
            "engine": self._metered_engine,
            "describe": self._describe,
            "run": self._run,
            "time": self._time,
            "kernels": self._kernels,
            "profile": self._profile,
            "sample": self._sample,
        }  # type: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]
        name = str(request.get("do"))
        if name not in functions:
            raise AgentError("request", "no such request: %.80r" % (name,))
        try:
            self._writer.say("done", **functions[name](request))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise AgentError("request", f"{name}: {one_line(error)}") from None

    def _engine(self, request: Mapping[str, Any]) -> dict[str, Any]:
        engine = self._engine_of(request["engine"])
        packages = {"numpy": str(np.__version__), request["engine"]["name"]: engine.version}
        return {
            "version": engine.version,
            "packages": packages,
            "providers": engine.providers,
            "capabilities": engine.capabilities,
        }

    def _metered_engine(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an engine is, and where joules of its runs come from."""
        meter = self._meter_of(request["engine"])
        return dict(self._engine(request), energy=meter if isinstance(meter, str) else meter.describe())

    def _meter_of(self, engine: Mapping[str, Any]) -> Any:
        gpu = str((engine.get("options") or {}).get("provider")).startswith(GPU_PROVIDERS)
        if gpu not in self._meters:
            self._meters[gpu] = find_meter(gpu)
        return self._meters[gpu]

    def _joules(self, engine: Mapping[str, Any], run: Callable[[int], float], seconds: float) -> float | None:
        try:
            return joules_of([run], self._meter_of(engine), seconds=seconds)[0]
        except EnergyError as error:
            raise AgentError("request", str(error)) from None

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        opened = self._open(request["artifact"])
        return {
            "inputs": [info.plain() for info in opened.inputs],
            "outputs": [info.plain() for info in opened.outputs],
        }

    def _run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        opened, inputs = self._open(request["artifact"]), self._arrays(request["inputs"])
        with held(self._lock, request.get("who") or {}, self._wait):  # answers would disturb who measures
            outputs = _engine_says(lambda: opened.run(inputs))
        packed = io.BytesIO()
        arrays = {"output_%d" % i: np.asarray(each) for i, each in enumerate(outputs.values())}  # type: dict[str, Any]
        np.savez(packed, **arrays)
        return {"names": list(outputs), "npz": base64.b64encode(packed.getvalue()).decode()}

    def _time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        opened, batch = self._open(request["artifact"]), request.get("batch")
        key = json.dumps([request.get(name) for name in ("clock", "batch", "example")])
        if key not in opened.timed:
            example = self._arrays(request.get("example"))
            once = _engine_says(lambda: opened.once(batch, example))
            opened.timed[key] = timed(once, str(request["clock"]))
        run, count = opened.timed[key], int(request["count"])
        with held(self._lock, request.get("who") or {}, self._wait), pinned(self._core(request["clock"])):
            return {"seconds": _engine_says(lambda: run(count))}

    def _kernels(self, request: Mapping[str, Any]) -> dict[str, Any]:
        engine, content = self._parts(request["artifact"])
        graph = _engine_says(lambda: engine.graph(content, self._scratch))
        return {"graph": base64.b64encode(graph).decode()}

    def _profile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        engine, content = self._parts(request["artifact"])
        example, runs = self._arrays(request["artifact"].get("example")), int(request["runs"])
        with held(self._lock, request.get("who") or {}, self._wait):
            names = _names(request["artifact"])
            graph, trace = _engine_says(lambda: engine.profile(content, example, runs, self._scratch, names))
        return {"graph": base64.b64encode(graph).decode(), "trace": base64.b64encode(trace).decode()}

    def _sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        artifacts, plan = request["artifacts"], request["plan"]
        sessions = [self._sessions(i, artifact, plan) for i, artifact in enumerate(artifacts)]
        self._writer.say(
            "at", share=0.0, waiting=False
        )  # what ends this process from now on is no file's opening
        ready = [i for i, each in enumerate(sessions) if not isinstance(each, str)]
        core = self._core(plan["clock"])
        with held(self._lock, request.get("who") or {}, self._wait), pinned(core):
            watched = self._board.best_core() if core is None else core
            watch = Watch(self._board, watched, self._writer.say, plan["waiting_s"])
            if watched not in self._references:
                self._references[watched] = Reference(learning_s=self._learning_s)
            of = [request["contexts"][i] for i in ready]
            runs = [sessions[i] for i in ready]  # type: list[Any]
            measured = interleaved(runs, plan, self._references[watched], of, watch)
            for i, each in zip(ready, measured):
                seconds = float(plan.get("energy_s", 0.0))
                each["energy_j"] = self._joules(artifacts[i]["engine"], sessions[i][0], seconds)
                watch.look(share=1.0, waiting=False)
        samples = [{"error": each} if isinstance(each, str) else {} for each in sessions]  # type: list[Any]
        for i, each in zip(ready, measured):
            samples[i] = each
        return {"samples": samples, "conditions": dict(watch.conditions(), pinned=core is not None)}

    def _sessions(self, index: int, artifact: Any, plan: Mapping[str, Any]) -> Any:
        """Return the file opened anew for each session of the plan and run once, or why it cannot be."""
        self._writer.say("at", index=index)
        engine, content = self._parts(artifact)
        example, batch = self._arrays(artifact.get("example")), artifact.get("batch")
        try:
            sessions = []
            for _ in range(plan["sessions"]):
                opened = engine.open(content, bool(artifact.get("exact_sums")), _names(artifact))
                run = timed(opened.once(batch, example), plan["clock"])
                run(1)
                sessions.append(run)
        except Exception as error:  # whatever the engine rejects becomes a row with its error
            return one_line(error)
        return sessions

    def _core(self, clock: Any) -> int | None:
        """Return the core to measure on: any where several threads work."""
        return self._board.best_core() if clock == "thread" else None

    def _wait(self, holder: Any) -> None:
        self._writer.say("at", waits_for=holder)

    def _parts(self, artifact: Mapping[str, Any]) -> tuple[Any, bytes]:
        return self._engine_of(artifact["engine"]), self._store.content(artifact["sha256"])

    def _engine_of(self, asked: Any) -> Any:
        key = json.dumps(asked, sort_keys=True)
        if key not in self._engines:
            self._engines[key] = engine_of(asked)
        return self._engines[key]

    def _open(self, artifact: Mapping[str, Any]) -> Any:
        key = json.dumps([artifact.get(name) for name in ("sha256", "engine", "exact_sums")], sort_keys=True)
        if key not in self._opened:
            engine, content = self._parts(artifact)
            exact = bool(artifact.get("exact_sums"))
            opened = _engine_says(lambda: engine.open(content, exact, _names(artifact)))
            opened.timed = {}
            self._opened[key] = opened
            while len(self._opened) > OPEN:
                self._opened.popitem(last=False)
        self._opened.move_to_end(key)
        return self._opened[key]

    def _arrays(self, sha256: Any) -> dict[str, Any] | None:
        """Return the arrays of an .npz file in the store; None where there is none.

        Raises:
            AgentError: it is no such file.
        """
        if sha256 is None:
            return None
        try:
            with np.load(io.BytesIO(self._store.content(sha256)), allow_pickle=False) as file:
                names = [str(name) for name in file["names"]]
                return {name: file["array_%d" % i] for i, name in enumerate(names)}
        except AgentError:
            raise
        except Exception as error:  # a file of whoever sent it
            raise AgentError("request", f"no arrays: {one_line(error)}") from None


def _names(artifact: Mapping[str, Any]) -> list[str]:
    """Return what inputs and outputs are called in a file."""
    return [str(name) for name in artifact.get("names") or ()]


def _engine_says(function: Callable[[], Any]) -> Any:
    """Return what a function gives; what an engine raises is about the file.

    Raises:
        AgentError: it raised something.
    """
    try:
        return function()
    except AgentError:
        raise
    except Exception as error:  # whatever the engine rejects
        raise AgentError("artifact", one_line(error)) from None


def serve(reader: Reader, worker: Worker, writer: Writer, answered: Callable[[], object]) -> None:
    """Answer every request that is read.

    Args:
        answered: called after each.
    """
    while True:
        line = reader.line()
        if line is None:
            return
        try:
            worker.answer(parse(line))
        except AgentError as error:
            writer.error(error.kind, one_line(error))
        except MemoryError:
            writer.error("artifact", "out of memory")
        answered()
