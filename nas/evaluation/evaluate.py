"""Real evaluations: accuracy on the supernet, and finalists measured through their files on the device."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import nn

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import Measurement, WaitBudget
from hw_profiles.profiles.whole_networks import measure_within_budget
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.runtime import Job
from hw_profiles.streams import Stream, open_stream
from nas.checks.parity import file_outputs
from nas.emit.to_onnx import emit
from nas.evaluation.sharing import Task
from nas.evaluation.store import EvaluationStore, Result
from nas.run.run import Run
from nas.run.storage import hidden
from nas.search.front import Evaluation
from nas.search.objectives import objective
from supernet.graph.quantized_graph import Network
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.task import Examples, Outputs, main_metric
from supernet.train.checkpoint import content_hash
from supernet.train.loop import load_supernet
from supernet.train.quantized import load_quantized

GROUP = 8  # files that are measured in turns
WAITING_SHARE = 0.25  # of what may still be waited for quiet, for one such group
FAILED_S = sys.float_info.max  # latency of what the device cannot run: a number that JSON and SQL can hold


@dataclass(frozen=True)
class Evaluator:
    """The trained supernet of a run, and what it takes to turn candidates into files.

    Attributes:
        portable: whether files must compute the same on every device, not only on the run's.
    """

    run: Run
    portable: bool = False

    @cached_property
    def _trained(self) -> tuple[nn.Module, LearnedQuantizers | None]:
        run = self.run
        if run.config.quantized.epochs:
            return load_quantized(run.family, run.quantized_path, self.sums)
        return load_supernet(run.family, run.checkpoint_path), None

    @property
    def supernet(self) -> nn.Module:
        """In evaluation mode."""
        return self._trained[0]

    @property
    def sums(self) -> IntegerSums:
        """Of the device that networks are rounded for; any device where they are to be portable."""
        return IntegerSums.UNKNOWN if self.portable else self.run.sums

    @property
    def quantizers(self) -> LearnedQuantizers | None:
        """Its learned scales; None where it had no quantized phase."""
        return self._trained[1]

    @cached_property
    def calibration(self) -> Examples:
        """The same examples for every candidate."""
        return calibration_examples(self.run.task, seed=self.run.config.seed)

    def network(self, candidate: Candidate) -> Network:
        """The candidate with its weights in its formats."""
        shared = (self.run.task, self.calibration, self.quantizers)
        return build_network(self.run.family, self.supernet, candidate, *shared, sums=self.sums)

    def emit(self, candidate: Candidate) -> bytes:
        """The candidate's file, for the batch size of the device."""
        return emit(self.network(candidate), batch=self.run.config.device.batch)

    @property
    def metric(self) -> str:
        """Name of the main metric of the run's task."""
        return main_metric(self.run.task).name

    # -- on the supernet -------------------------------------------------------------------------------

    def sample(self, candidates: Sequence[Candidate]) -> Iterator[float]:
        """Yield the main metric on search-validation in simulation, one after the other; known ones cost
        nothing.
        """
        return (values[self.metric] for values, _ in self.sampling.results(candidates))

    @property
    def samples(self) -> EvaluationStore:
        """Main metrics on the supernet, for the predictor to learn from."""
        return self.sampling.store

    @cached_property
    def sampling(self) -> Task:
        """How samples are evaluated."""
        images = self.run.config.sample.images
        study = f"supernet-{self.run.rounded_fingerprint}" + (f"-drawn-{images}" if images else "")
        return self._task(study, [self.metric], self._simulate, 1, partial(supernet_identity, self.run))

    @cached_property
    def scoring(self) -> Examples:
        """The examples of search-validation that samples are scored on, the same for all: those that
        `sample.images` says, drawn, since data comes sorted by class.
        """
        everything, config = self.run.task.validation, self.run.config
        if not config.sample.images:
            return everything
        order = open_stream(config.seed, Stream.SCORED_IMAGES).permutation(len(everything))
        return everything[np.sort(order[: config.sample.images])]

    def _simulate(self, candidates: Sequence[Candidate]) -> Iterator[Result]:
        for candidate in candidates:
            value = simulated_metric(self.network(candidate), self.scoring, self.run.task)
            yield {self.metric: value}, {"source": "supernet"}

    # -- through files, on the device ------------------------------------------------------------------

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[Evaluation]:
        """Yield the evaluation of each candidate: its metrics on search-validation through the file, the
        median and IQR of its latency and the load then, and its bytes; known ones cost nothing.

        A candidate that the device cannot run gets the largest latency there is.
        """
        results = self.measuring.results(candidates)
        for candidate, (values, attributes) in zip(candidates, results, strict=True):
            if "iqr_s" not in attributes:
                raise TrilobitError(
                    f"{hidden(self.run.storage_url)}: {candidate.id} was measured without a spread, which "
                    "only damage explains; put a copy of it back, or delete it to measure everything again"
                )
            values = {**values, **attributes.get("metrics", {})}
            spread = {"latency": float(attributes["iqr_s"]), **self._standard_errors(values)}
            load = attributes.get("load")  # absent where the system cannot tell, and in older storages
            yield Evaluation(candidate, values, "measured", spread, None if load is None else float(load))

    def _standard_errors(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the standard deviations of shares of the search-validation examples."""
        shares = {name: value for name, value in values.items() if objective(name).unit == "fraction"}
        n = len(self.run.task.validation) if shares else 1
        return {name: float(np.sqrt(share * (1 - share) / n)) for name, share in shares.items()}

    @cached_property
    def measuring(self) -> Task:
        """How finalists are measured."""
        study = f"measured-{self.run.fingerprint('train')}-{self.run.fingerprint('profile')}"
        group = 1 if self.run.recorded else GROUP  # nothing takes turns where numbers are looked up
        return self._task(
            study, (self.metric, "latency", "size"), self._measure, group, partial(device_identity, self.run)
        )

    def _measure(self, group: Sequence[Candidate]) -> Iterator[Result]:
        models = [self.emit(candidate) for candidate in group]
        works = [self.run.family.workload(candidate) for candidate in group]
        latencies = self.latencies([Job(w, partial(_same, m)) for w, m in zip(works, models, strict=True)])
        task, main = self.run.task, main_metric(self.run.task)
        for model, latency in zip(models, latencies, strict=True):
            ran = latency.error is None
            metrics = {main.name: 0.0 if main.direction == "max" else FAILED_S}
            if ran:
                said = file_outputs(model, task.validation, task, self.run.runtime)
                metrics = task.evaluate(said, task.validation, self.original)
            values = {
                main.name: metrics.pop(main.name),
                "latency": latency.median_s if ran else FAILED_S,
                "size": float(len(model)),
            }
            spread = {"iqr_s": latency.iqr_s if ran else 0.0, "load": latency.load, "error": latency.error}
            yield values, {"source": "measured", **spread, "metrics": metrics}

    @cached_property
    def original(self) -> Outputs:
        """What the largest network in fp32 says of search-validation: others are compared with it."""
        task, reference = self.run.task, self.run.family.corners()["largest/fp32"]
        return file_outputs(self.emit(reference), task.validation, task, self.run.runtime)

    @cached_property
    def waiting(self) -> WaitBudget:
        """What all of its measurements may wait for quiet, together."""
        return WaitBudget(self.run.plan.waiting_s)

    def latencies(self, jobs: Sequence[Job]) -> list[Measurement]:
        """Measured on the run's device, in the same passes."""
        with self.waiting.part(WAITING_SHARE) as some:
            return measure_within_budget(self.run.backend, jobs, self.run.plan, some)

    def _task(
        self,
        study: str,
        values: Sequence[str],
        evaluate: Callable[[Sequence[Candidate]], Iterator[Result]],
        group: int,
        identity: Callable[[], Mapping[str, Any]],
    ) -> Task:
        run, grace_s = self.run, self.run.config.storage.grace_s
        objectives = [objective(name) for name in values]
        few = len(values) > 1  # finalists
        open_store = partial(EvaluationStore, decisions=few, grace_s=grace_s)
        opened = partial(open_store, run.storage_url, study, run.family.space(), objectives)
        return Task(study, opened, evaluate, group, identity, run.shared, grace_s)


def supernet_identity(run: Run) -> dict[str, Any]:
    """What accuracies on the supernet depend on."""
    space, config = run.family.space(), run.config
    trained = run.quantized_path if config.quantized.epochs else run.checkpoint_path
    packages = ("trilobit", "torch")
    return _plain(
        {
            "space": {"name": space.family, "fingerprint": space.fingerprint},
            "data": run.task.fingerprint,
            "seed": config.seed,
            "train": run.trained_by,
            "quantized": config.section("quantized"),
            "weights": content_hash(trained) if trained.exists() else "absent",
            "images": config.sample.images,
            **run.sums.identity,
            "software": {name: version(name) for name in packages},
        }
    )


def device_identity(run: Run) -> dict[str, Any]:
    """What measured values depend on."""
    device = {"device": run.backend.describe().to_json(), "measure": run.config.section("measure")}
    return _plain({**supernet_identity(run), **device, "profile": run.config.section("profile")})


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from the storage."""
    return dict(json.loads(json.dumps(document, default=str)))


def _same(model: bytes) -> bytes:
    return model
