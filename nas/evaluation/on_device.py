"""Finalists measured through their files on the device."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.lowering import lower
from hw_profiles.measure.measurement import Measurement, WaitBudget
from hw_profiles.profiles.whole_networks import measure_within_budget
from hw_profiles.runtimes.runtime import Artifact, Job
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import device_identity, open_study
from nas.evaluation.micro import ARENA, FLASH, TOO_LARGE, micro_metrics
from nas.evaluation.reference import OPEN, RunReference, builder_of, opened, reference_to
from nas.evaluation.store import EvaluationStore, Result
from nas.evaluation.study import Study
from nas.evaluation.through import LIBRARY, Answered, device_outputs, original_outputs
from nas.export.library.target import own_target
from nas.problem.scenarios import scenario_latency, tokens_per_s
from nas.run.storage import hidden
from nas.search.front import Evaluation
from nas.search.objectives import objective
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate
from supernet.tasks.metric import main_metric

MEASURED = "measured"  # how the name of their study begins
GROUP = 8  # files that are measured in turns
WAITING_SHARE = 0.25  # of what may still be waited for quiet, for one such group
FAILED_S = sys.float_info.max  # latency of what the device cannot run: a number that JSON and SQL can hold


@dataclass(frozen=True)
class DeviceEvaluator:
    """Measures networks on the run's device, by the file that would be shipped."""

    builder: NetworkBuilder

    def measure(
        self, candidates: Sequence[Candidate], on_found: Callable[[int], None] = lambda done: None
    ) -> Iterator[Evaluation]:
        """Yield the evaluation of each candidate: its metrics on search-validation through what the
        device runs (`nas.evaluation.through`), the median and IQR of its latency and the load then, and its
        bytes; known ones cost nothing. That of one that the device cannot run has no values, but an error.

        Args:
            on_found: told how many are there: by a cluster in any order.
        """
        results = self.measuring.results(candidates, lambda done, _: on_found(done))
        for candidate, (values, attributes) in zip(candidates, results, strict=True):
            if "iqr_s" not in attributes and not self.builder.run.timeless:
                raise TrilobitError(
                    f"{hidden(self.builder.run.storage_url)}: {candidate.id} was measured without a spread, "
                    "as no version writes it; put a copy of it back, or delete it to measure everything again"
                )
            scenarios = attributes.get("scenarios", {})
            values = {**values, **attributes.get("metrics", {})}
            if (why := _failure(values, attributes)) is not None:
                yield Evaluation(candidate, {}, "measured", error=why)
                continue
            values |= self._in_scenarios({name: float(m["median_s"]) for name, m in scenarios.items()})
            timed = {} if self.builder.run.timeless else {"latency": float(attributes["iqr_s"])}
            spread = {**timed, **self._standard_errors(values)}
            spread |= {name: float(measured["iqr_s"]) for name, measured in scenarios.items()}
            load = attributes.get("load")  # absent where the system cannot tell, and in older storages
            yield Evaluation(candidate, values, "measured", spread, None if load is None else float(load))

    def _in_scenarios(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Return latencies in scenarios, and what follows from them."""
        columns = {name: np.array([value]) for name, value in seconds.items()}
        columns |= tokens_per_s(columns, self.builder.run.config.device.batch)
        return {name: float(column[0]) for name, column in columns.items()}

    def _standard_errors(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the standard deviations of shares of the search-validation examples."""
        task = self.builder.run.task
        shares = {
            metric.name: values[metric.name]
            for metric in task.metrics
            if metric.share and metric.name in values
        }
        n = len(task.validation)
        return {name: float(np.sqrt(share * (1 - share) / n)) for name, share in shares.items()}

    @cached_property
    def measuring(self) -> Study:
        """How finalists are measured."""
        study = (
            f"{MEASURED}-{self.builder.run.fingerprint('train')}-{self.builder.run.fingerprint('profile')}"
        )
        if own_target(self.builder.run):  # none of those that earlier versions measured through ONNX files
            study += f"-{LIBRARY}"
        group = 1 if self.builder.run.recorded else GROUP  # nothing takes turns where numbers are looked up
        return open_study(
            self.builder.run,
            study,
            (self.builder.metric, *(() if self.builder.run.timeless else ("latency",)), "size"),
            self._evaluate,
            group=group,
            cluster=self.builder.run.finalists_cluster,
            identity=partial(device_identity, self.builder.run),
        )

    def _evaluate(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        shared = self.builder.run.finalists_cluster is not None
        return self._there(candidates) if shared else self._here(candidates)

    def _here(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        group = [self._built(candidate) for candidate in candidates]
        if self.builder.run.timeless:
            yield from ((built.candidate, self._untimed(built)) for built in group)
            return
        for built, timed in zip(group, self._time(group), strict=True):
            answer = self._answer(built) if timed.ran else None
            yield built.candidate, self._result(timed, answer, len(built.model))

    def _there(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Result]]:
        """First what networks answer, on any workers, then how long they take, on those that may measure:
        nothing that this run computes disturbs a measurement.
        """
        answers = self._answers(candidates)
        if self.builder.run.timeless:
            for candidate in candidates:
                if isinstance(answer := answers[candidate], str):
                    if (why := self._rejection(built := self._built(candidate))) is None:
                        raise TrilobitError(answer)
                    answer = self._failed(len(built.model), why)
                yield candidate, _of_no_time(answer)
            return
        for candidate, timed in self._times(candidates):
            answer = answers[candidate]
            if isinstance(answer, str):
                if timed.ran:
                    raise TrilobitError(answer)
                yield candidate, self._result(timed, None, len(self.builder.emit(candidate)))
            else:
                yield candidate, self._result(timed, answer if timed.ran else None, int(answer[0]["size"]))

    def _answers(self, candidates: Sequence[Candidate]) -> dict[Candidate, Result | str]:
        """Return what networks answer, found by a cluster, and why where one cannot be run; kept, so that it
        is there where measuring is interrupted.
        """
        run, cluster = self.builder.run, self.builder.run.cluster
        assert cluster is not None
        objectives = [objective(self.builder.metric), objective("size")]
        name = self.measuring.name.replace(MEASURED, "answered", 1)
        store = EvaluationStore(run.storage_url, name, run.family.space(), objectives, decisions=False)
        missing = [candidate for candidate in candidates if store.get(candidate) is None]
        answers: dict[Candidate, Result | str] = {}
        answer = partial(answer_there, reference_to(run, "answers"))
        for i, result in cluster.answers(answer, [candidate.genes for candidate in missing]):
            if isinstance(result, str):
                answers[missing[i]] = result
            else:
                store.add(missing[i], *result)
        return {**{c: known for c in candidates if (known := store.get(c)) is not None}, **answers}

    def _times(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, "Timed"]]:
        """Yield how long networks take: looked up or measured here, or by workers of a cluster."""
        run, cluster = self.builder.run, self.builder.run.cluster
        if cluster is None or cluster.local or run.recorded:
            for group in turns(candidates, 1):
                yield from zip(group, self.time(group), strict=True)
            return
        groups = turns(candidates, cluster.count(measuring=True))
        genes = [[candidate.genes for candidate in group] for group in groups]
        time = partial(time_there, reference_to(run, "device"))
        for i, timed in cluster.answers(time, genes, measuring=True):
            yield from zip(groups[i], timed, strict=True)

    def time(self, candidates: Sequence[Candidate]) -> "list[Timed]":
        """Return how long networks take, measured in the same turns, in this process."""
        return self._time([self._built(candidate) for candidate in candidates])

    def answer(self, candidate: Candidate) -> Result:
        """Return the metrics of a network's answers on search-validation, and the size of its file, found in
        this process.

        Raises:
            TrilobitError: the device's runtime rejects it.
        """
        return self._answer(self._built(candidate))

    def _built(self, candidate: Candidate) -> "Built":
        network = self.builder.network(candidate)
        return Built(candidate, network, self.builder.file_of(network))

    def _time(self, group: "Sequence[Built]") -> "list[Timed]":
        jobs = [self._jobs(built) for built in group]
        measured = iter(self.latencies([job for of_one in jobs for job in of_one.values()]))
        return [Timed({name: next(measured) for name in of_one}) for of_one in jobs]

    def _untimed(self, built: "Built") -> Result:
        """Return what is kept of a network on a device without times."""
        why = self._rejection(built)
        return _of_no_time(self._answer(built) if why is None else self._failed(len(built.model), why))

    def _rejection(self, built: "Built") -> str | None:
        """Return why the device does not run a network; None where it does."""
        try:
            self.builder.run.runtime.compile(Artifact(built.model))
        except TrilobitError as error:
            return str(error)
        return None

    def _answer(self, built: "Built") -> Result:
        run, main = self.builder.run, main_metric(self.builder.run.task)
        answered = device_outputs(run, built.network, built.model, run.task.validation)
        metrics = run.task.evaluate(answered.outputs, run.task.validation, self.original.outputs)
        ways = {"through": answered.through, "original_through": self.original.through}
        values = {main.name: metrics.pop(main.name), "size": float(len(built.model))}
        try:
            metrics |= micro_metrics(run, built.model)
        except TrilobitError as error:
            return values, {"metrics": metrics, "error": str(error), **ways}
        return values, {"metrics": metrics, **ways}

    def _failed(self, size_bytes: int, why: str | None) -> Result:
        """Return what is kept of a network that the device does not run: a storage has numbers only."""
        main = main_metric(self.builder.run.task)
        worst = 0.0 if main.direction == "max" else FAILED_S
        return {main.name: worst, "size": float(size_bytes)}, {"metrics": {}, "error": why}

    def _result(self, timed: "Timed", answer: Result | None, size_bytes: int) -> Result:
        """Return what is kept of a network; without an answer, of one that the device does not run."""
        latency = timed.latency
        values, attributes = answer or self._failed(size_bytes, latency.error)
        spread: dict[str, Any] = {"iqr_s": latency.iqr_s if timed.ran else 0.0}
        spread |= {"load": latency.load, "error": latency.error}
        if self.builder.run.family.scenarios:
            spread["scenarios"] = {
                name: {
                    "median_s": m.median_s if timed.ran else FAILED_S,
                    "iqr_s": m.iqr_s if timed.ran else 0.0,
                }
                for name, m in timed.times.items()
            }
        values = {**values, "latency": latency.median_s if timed.ran else FAILED_S}
        return values, {"source": "measured", **spread, **attributes}

    def _jobs(self, built: "Built") -> dict[str, Job]:
        """Return what is timed of a network, by name of the objective: its file, or that of a decoder with a
        cache in each scenario.
        """
        family = self.builder.run.family
        if not family.scenarios:
            return {"latency": Job(family.workload(built.candidate), partial(_same, built.model))}
        cached = {
            name: replace(built.network, workload=lower(family.scenario_workload(built.candidate, name)))
            for name in family.scenarios
        }
        return {
            scenario_latency(name): Job(net.workload, partial(self.builder.file_of, net))
            for name, net in cached.items()
        }

    @cached_property
    def original(self) -> Answered:
        """What the largest network in fp32 says of search-validation: others are compared with it."""
        run = self.builder.run
        network = self.builder.network(run.family.extreme("largest"))
        return original_outputs(run, network, self.builder.file_of(network), run.task.validation)

    @cached_property
    def waiting(self) -> WaitBudget:
        """What all of its measurements may wait for an undisturbed machine, together."""
        return WaitBudget(self.builder.run.plan.waiting_s)

    def latencies(self, jobs: Sequence[Job]) -> list[Measurement]:
        """Return jobs measured on the run's device, interleaved."""
        with self.waiting.part(WAITING_SHARE) as some:
            return measure_within_budget(self.builder.run.device, jobs, self.builder.run.plan, some)


def turns(candidates: Sequence[Candidate], workers: int) -> list[Sequence[Candidate]]:
    """Return candidates in groups, each measured in turns: of about the same size, `GROUP` at most, half of
    that where several workers share them, and as many as keep so many workers busy to the end.
    """
    if not candidates:
        return []
    most = GROUP if workers == 1 else GROUP // 2  # some take longer than others: small groups even that out
    each = -(-len(candidates) // (most * workers))
    ends = np.linspace(0, len(candidates), min(len(candidates), each * workers) + 1).round().astype(int)
    return [candidates[start:end] for start, end in pairwise(ends.tolist())]


def _failure(values: Mapping[str, float], attributes: Mapping[str, Any]) -> str | None:
    """Return why the device does not run a network; None of one that it runs."""
    if (why := attributes.get("error")) is not None:
        return str(why)
    if any(values.get(name, 0.0) >= TOO_LARGE for name in (ARENA, FLASH)):  # by an earlier version
        return "TensorFlow Lite Micro does not run it"
    return None


def _of_no_time(answer: Result) -> Result:
    values, attributes = answer
    return values, {"source": "measured", "error": None, **attributes}


def _same(model: bytes) -> bytes:
    return model


@dataclass(frozen=True, eq=False)
class Built:
    """A candidate as a network with its weights, and its file."""

    candidate: Candidate
    network: QuantizedGraph
    model: bytes


@dataclass(frozen=True)
class Timed:
    """How long one network takes.

    Attributes:
        times: by name of the objective.
    """

    times: Mapping[str, Measurement]

    @property
    def latency(self) -> Measurement:
        """The first time, or one that failed."""
        return next((m for m in self.times.values() if m.error is not None), next(iter(self.times.values())))

    @property
    def ran(self) -> bool:
        """Whether the device runs it."""
        return self.latency.error is None


# -- on workers of a cluster -------------------------------------------------------------------------------


def answer_there(reference: RunReference, genes: tuple[int, ...]) -> Result | str:
    """Return what a network answers, found on a worker; why not where it cannot be run."""
    with opened(reference) as builder:
        try:
            return _evaluator(reference).answer(_candidates(builder, [genes])[0])
        except TrilobitError as error:
            return str(error)


def time_there(reference: RunReference, genes: Sequence[tuple[int, ...]]) -> list[Timed]:
    """Return how long networks take, measured in the same turns on a worker, which waits for quiet as long as
    one such group may.
    """
    with opened(reference) as builder:
        return DeviceEvaluator(builder).time(_candidates(builder, genes))


def _candidates(builder: NetworkBuilder, genes: Sequence[tuple[int, ...]]) -> list[Candidate]:
    space = builder.run.family.space()
    return [space.candidate(np.array(each, np.int16)) for each in genes]


@lru_cache(maxsize=OPEN)
def _evaluator(reference: RunReference) -> DeviceEvaluator:
    """Return the evaluator that keeps what the original says, within `opened`."""
    return DeviceEvaluator(builder_of(reference.base))
