"""Finalists measured through their files on the device."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import Measurement, WaitBudget
from hw_profiles.profiles.whole_networks import measure_within_budget
from hw_profiles.runtimes.runtime import Job
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import device_identity, open_study
from nas.evaluation.sharing import Study
from nas.evaluation.store import Result
from nas.evaluation.through import LIBRARY, Answered, device_outputs
from nas.export.library.target import own_target
from nas.run.storage import hidden
from nas.search.front import Evaluation
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
            values = {**values, **attributes.get("metrics", {})}
            spread = {"latency": float(attributes["iqr_s"]), **self._standard_errors(values)}
            load = attributes.get("load")  # absent where the system cannot tell, and in older storages
            yield Evaluation(candidate, values, "measured", spread, None if load is None else float(load))

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
        works = [self.builder.run.family.workload(candidate) for candidate in group]
        latencies = self.latencies([Job(w, partial(_same, m)) for w, m in zip(works, models, strict=True)])
        task, main = self.builder.run.task, main_metric(self.builder.run.task)
        for network, model, latency in zip(networks, models, latencies, strict=True):
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
            spread = {"iqr_s": latency.iqr_s if ran else 0.0, "load": latency.load, "error": latency.error}
            yield values, {"source": "measured", **spread, "metrics": metrics, **ways}

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
