"""Real evaluations: accuracy on the supernet, and finalists measured through their files on the device."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

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
from supernet.quant.learned import LearnedQuantizers
from supernet.space import Candidate
from supernet.train.images import Images
from supernet.train.loop import load_supernet
from supernet.train.quantized import load_quantized

MEASURED = ("accuracy", "latency", "size")
GROUP = 8  # files that are measured in turns
FAILED_S = sys.float_info.max  # latency of what the device cannot run: a number that JSON and SQL can hold


@dataclass(frozen=True)
class Evaluator:
    """The trained supernet of a run, and what it takes to turn candidates into files."""

    run: Run

    @cached_property
    def _trained(self) -> tuple[nn.Module, LearnedQuantizers | None]:
        run = self.run
        if run.config.quantized.epochs:
            return load_quantized(run.family, run.quantized_path)
        return load_supernet(run.family, run.checkpoint_path), None

    @property
    def supernet(self) -> nn.Module:
        """In evaluation mode."""
        return self._trained[0]

    @property
    def quantizers(self) -> LearnedQuantizers | None:
        """Its learned scales; None where it had no quantized phase."""
        return self._trained[1]

    @cached_property
    def calibration(self) -> Images:
        """The same images for every candidate."""
        return calibration_images(self.run.dataset, seed=self.run.config.seed)

    def network(self, candidate: Candidate) -> Network:
        """The candidate with its weights in its formats."""
        shared = (self.run.dataset, self.calibration, self.quantizers)
        return build_network(self.run.family, self.supernet, candidate, *shared)

    def emit(self, candidate: Candidate) -> bytes:
        """The candidate's file, for the batch size of the device."""
        return emit(self.network(candidate), batch=self.run.config.device.batch)

    # -- on the supernet -------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> EvaluationStore:
        """Accuracies on the supernet, for the predictor to learn from."""
        images = self.run.config.sample.images
        name = f"supernet-{self.run.fingerprint('train')}" + (f"-{images}" if images else "")
        space = self.run.family.space()
        return EvaluationStore(self.run.storage_url, name, space, [objective("accuracy")], decisions=False)

    def sample(self, candidates: Sequence[Candidate]) -> Iterator[float]:
        """Accuracy on search-validation in simulation, one after the other; known ones cost nothing."""
        data = self.run.dataset
        scoring = data.validation[: self.run.config.sample.images or None]
        for candidate in candidates:
            if self.samples.get(candidate) is None:
                accuracy = simulated_accuracy(self.network(candidate), scoring, data)
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
        return EvaluationStore(
            self.run.storage_url, name, self.run.family.space(), objectives, decisions=True
        )

    def measure(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, dict[str, float]]]:
        """Each candidate with its accuracy on search-validation through the file, the median (`latency`) and
        IQR (`iqr_s`) of its latency, and its bytes; known ones cost nothing.

        A candidate that the device cannot run gets the largest latency there is.
        """
        for start in range(0, len(candidates), GROUP):
            group = candidates[start : start + GROUP]
            self._measure_group([candidate for candidate in group if self.finalists.get(candidate) is None])
            yield from ((candidate, self._stored(candidate)) for candidate in group)

    def _measure_group(self, group: Sequence[Candidate]) -> None:
        models = [self.emit(candidate) for candidate in group]
        works = [self.run.family.workload(candidate) for candidate in group]
        latencies = self.latencies([Job(w, partial(_same, m)) for w, m in zip(works, models, strict=True)])
        data = self.run.dataset
        for candidate, model, latency in zip(group, models, latencies, strict=True):
            ran = latency.error is None
            values = {
                "accuracy": file_accuracy(model, data.validation, data) if ran else 0.0,
                "latency": latency.median_s if ran else FAILED_S,
                "size": float(len(model)),
            }
            spread = {"iqr_s": latency.iqr_s if ran else 0.0, "error": latency.error}
            self.finalists.add(candidate, values, {"source": "measured", **spread})

    def latencies(self, jobs: Sequence[Job]) -> list[Measurement]:
        """Measured on the run's device, in turns."""
        return measure_patiently(self.run.backend, jobs, self.run.plan)

    def _stored(self, candidate: Candidate) -> dict[str, float]:
        known = self.finalists.get(candidate)
        assert known is not None
        values, attributes = known
        return {**values, "iqr_s": float(attributes["iqr_s"])}


def _same(model: bytes) -> bytes:
    return model
