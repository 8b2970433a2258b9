"""Real evaluations: accuracy on the supernet, and finalists measured through their files on the device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from torch import nn

from hw_profiles.backend import Job
from hw_profiles.measurement import Measurement
from hw_profiles.profiler import measure_patiently
from nas.export.to_onnx import emit
from nas.export.verify import file_accuracy
from nas.objectives import objective
from nas.run import Run
from nas.store import EvaluationStore
from supernet.evaluate import build_network, calibration_images, simulated_accuracy
from supernet.network import Network
from supernet.space import Candidate
from supernet.train.images import Images
from supernet.train.loop import load_supernet

MEASURED = ("accuracy", "latency", "size")
GROUP = 8  # files that are measured in turns


@dataclass(frozen=True)
class Evaluator:
    """The trained supernet of a run, and what it takes to turn candidates into files."""

    run: Run

    @cached_property
    def supernet(self) -> nn.Module:
        """In evaluation mode."""
        return load_supernet(self.run.family, self.run.checkpoint_path)

    @cached_property
    def calibration(self) -> Images:
        """The same images for every candidate."""
        return calibration_images(self.run.dataset, seed=self.run.config.seed)

    def network(self, candidate: Candidate) -> Network:
        """The candidate with its weights in its formats."""
        return build_network(self.run.family, self.supernet, candidate, self.run.dataset, self.calibration)

    # -- on the supernet -------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> EvaluationStore:
        """Accuracies on the supernet, for the predictor to learn from."""
        name = f"supernet-{self.run.fingerprint('train')}"
        space = self.run.family.space()
        return EvaluationStore(self.run.storage_url, name, space, [objective("accuracy")], decisions=False)

    def sample(self, candidates: Sequence[Candidate]) -> Iterator[float]:
        """Accuracy on search-validation in simulation, one after the other; known ones cost nothing."""
        for candidate in candidates:
            if self.samples.get(candidate) is None:
                accuracy = simulated_accuracy(
                    self.network(candidate), self.run.dataset.validation, self.run.dataset
                )
                self.samples.add(candidate, {"accuracy": accuracy}, {"source": "supernet"})
            known = self.samples.get(candidate)
            assert known is not None
            yield known[0]["accuracy"]

    # -- through files, on the device ------------------------------------------------------------------

    @cached_property
    def finalists(self) -> EvaluationStore:
        """Measured values of finalists."""
        name = f"measured-{self.run.fingerprint('train')}-{self.run.fingerprint('profile')}"
        objectives = [objective(name) for name in MEASURED]
        return EvaluationStore(self.run.storage_url, name, self.run.family.space(), objectives, decisions=True)

    def measure(self, candidates: Sequence[Candidate], tick: Callable[[], None]) -> list[dict[str, float]]:
        """Accuracy on search-validation through the file, median and IQR of its latency, its bytes; known ones cost nothing.

        A candidate that the device cannot run gets an infinite latency.
        """
        unknown = [candidate for candidate in candidates if self.finalists.get(candidate) is None]
        for start in range(0, len(unknown), GROUP):
            self._measure_group(unknown[start : start + GROUP], tick)
        return [self._stored(candidate) for candidate in candidates]

    def _measure_group(self, group: Sequence[Candidate], tick: Callable[[], None]) -> None:
        models = [emit(self.network(candidate)) for candidate in group]
        works = [self.run.family.workload(candidate) for candidate in group]
        latencies = self.latencies([Job(w, partial(_same, m)) for w, m in zip(works, models, strict=True)])
        data = self.run.dataset
        for candidate, model, latency in zip(group, models, latencies, strict=True):
            values = {
                "accuracy": file_accuracy(model, data.validation, data),
                "latency": latency.median_s if latency.samples_s else float(np.finfo(np.float64).max),
                "size": float(len(model)),
            }
            spread = {"iqr_s": latency.iqr_s if latency.samples_s else 0.0, "error": latency.error}
            self.finalists.add(candidate, values, {"source": "measured", **spread})
            tick()

    def latencies(self, jobs: Sequence[Job]) -> list[Measurement]:
        """Measured on the run's device, in turns."""
        return measure_patiently(self.run.backend, jobs, self.run.config.measure)

    def _stored(self, candidate: Candidate) -> dict[str, float]:
        known = self.finalists.get(candidate)
        assert known is not None
        values, attributes = known
        return {**values, "iqr_s": float(attributes["iqr_s"])}


def _same(model: bytes) -> bytes:
    return model
