"""Finalists measured through their files on the device."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.lowering import lower
from hw_profiles.measure.measurement import Measurement, WaitBudget
from hw_profiles.profiles.whole_networks import measure_within_budget
from hw_profiles.runtimes.runtime import Job
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import device_identity, open_study
from nas.evaluation.sharing import Study
from nas.evaluation.store import Result
from nas.evaluation.through import LIBRARY, Answered, device_outputs
from nas.export.library.target import own_target
from nas.problem.scenarios import scenario_latency, tokens_per_s
from nas.run.storage import hidden
from nas.search.front import Evaluation
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate
from supernet.tasks.metric import main_metric

GROUP = 8  # files that are measured in turns
WAITING_SHARE = 0.25  # of what may still be waited for quiet, for one such group
FAILED_S = sys.float_info.max  # latency of what the device cannot run: a number that JSON and SQL can hold


@dataclass(frozen=True)
class DeviceEvaluator:
    """Measures networks on the run's device, by the file that would be shipped."""

    builder: NetworkBuilder

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[Evaluation]:
        """Yield the evaluation of each candidate: its metrics on search-validation through what the
        device runs (`nas.evaluation.through`), the median and IQR of its latency and the load then, and its
        bytes; known ones cost nothing.

        A candidate that the device cannot run gets the largest latency there is.
        """
        results = self.measuring.results(candidates)
        for candidate, (values, attributes) in zip(candidates, results, strict=True):
            if "iqr_s" not in attributes:
                raise TrilobitError(
                    f"{hidden(self.builder.run.storage_url)}: {candidate.id} was measured without a spread, "
                    "as no version writes it; put a copy of it back, or delete it to measure everything again"
                )
            scenarios = attributes.get("scenarios", {})
            values = {**values, **attributes.get("metrics", {})}
            values |= self._in_scenarios({name: float(m["median_s"]) for name, m in scenarios.items()})
            spread = {"latency": float(attributes["iqr_s"]), **self._standard_errors(values)}
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
        study = f"measured-{self.builder.run.fingerprint('train')}-{self.builder.run.fingerprint('profile')}"
        if own_target(self.builder.run):  # none of those that earlier versions measured through ONNX files
            study += f"-{LIBRARY}"
        group = 1 if self.builder.run.recorded else GROUP  # nothing takes turns where numbers are looked up
        return open_study(
            self.builder.run,
            study,
            (self.builder.metric, "latency", "size"),
            self._measure,
            group=group,
            identity=partial(device_identity, self.builder.run),
        )

    def _measure(self, group: Sequence[Candidate]) -> Iterator[Result]:
        networks = [self.builder.network(candidate) for candidate in group]
        models = [self.builder.file_of(network) for network in networks]
        jobs = [self._jobs(*each) for each in zip(group, networks, models, strict=True)]
        measured = iter(self.latencies([job for of_one in jobs for job in of_one.values()]))
        timed = [{name: next(measured) for name in of_one} for of_one in jobs]
        task, main = self.builder.run.task, main_metric(self.builder.run.task)
        for network, model, times in zip(networks, models, timed, strict=True):
            latency = next((m for m in times.values() if m.error is not None), next(iter(times.values())))
            ran, ways = latency.error is None, dict[str, str]()
            metrics = {main.name: 0.0 if main.direction == "max" else FAILED_S}
            if ran:
                answered = device_outputs(self.builder.run, network, model, task.validation)
                metrics = task.evaluate(answered.outputs, task.validation, self.original.outputs)
                ways = {"through": answered.through, "original_through": self.original.through}
            values = {
                main.name: metrics.pop(main.name),
                "latency": latency.median_s if ran else FAILED_S,
                "size": float(len(model)),
            }
            spread: dict[str, Any] = {"iqr_s": latency.iqr_s if ran else 0.0}
            spread |= {"load": latency.load, "error": latency.error}
            if self.builder.run.family.scenarios:
                spread["scenarios"] = {
                    name: {"median_s": m.median_s if ran else FAILED_S, "iqr_s": m.iqr_s if ran else 0.0}
                    for name, m in times.items()
                }
            yield values, {"source": "measured", **spread, "metrics": metrics, **ways}

    def _jobs(self, candidate: Candidate, network: QuantizedGraph, model: bytes) -> dict[str, Job]:
        """Return what is timed of a network, by name of the objective: its file, or that of a decoder with a
        cache in each scenario.
        """
        family = self.builder.run.family
        if not family.scenarios:
            return {"latency": Job(family.workload(candidate), partial(_same, model))}
        cached = {
            name: replace(network, workload=lower(family.scenario_workload(candidate, name)))
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
        return device_outputs(run, network, self.builder.file_of(network), run.task.validation)

    @cached_property
    def waiting(self) -> WaitBudget:
        """What all of its measurements may wait for an undisturbed machine, together."""
        return WaitBudget(self.builder.run.plan.waiting_s)

    def latencies(self, jobs: Sequence[Job]) -> list[Measurement]:
        """Return jobs measured on the run's device, interleaved."""
        with self.waiting.part(WAITING_SHARE) as some:
            return measure_within_budget(self.builder.run.device, jobs, self.builder.run.plan, some)


def _same(model: bytes) -> bytes:
    return model
