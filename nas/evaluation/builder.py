"""The trained supernet of a run, and what it takes to turn candidates into networks and files."""

from dataclasses import dataclass
from functools import cached_property

from torch import nn

from hw_profiles.reference.integer_sums import IntegerSums
from nas.emit.to_onnx import emit
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples, integer_only_network
from supernet.tasks.metric import main_metric
from supernet.tasks.task import Examples
from supernet.train.loop import load_supernet
from supernet.train.quantized import load_quantized


@dataclass(frozen=True)
class NetworkBuilder:
    """Builds the networks of a run from its trained supernet, which is loaded on first use.

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
        """The supernet in evaluation mode."""
        return self._trained[0]

    @property
    def sums(self) -> IntegerSums:
        """What sums of the device networks are rounded for; any device where they are to be portable."""
        return IntegerSums.UNKNOWN if self.portable else self.run.sums

    @property
    def quantizers(self) -> LearnedQuantizers | None:
        """The supernet's learned scales; None where it had no quantized phase."""
        return self._trained[1]

    @cached_property
    def calibration(self) -> Examples:
        """The same examples for every candidate."""
        return calibration_examples(self.run.task, seed=self.run.config.seed)

    def network(self, candidate: Candidate) -> QuantizedGraph:
        """Return the candidate with its weights in its formats."""
        shared = (self.run.task, self.calibration, self.quantizers)
        return build_network(self.run.family, self.supernet, candidate, *shared, sums=self.sums)

    def integer_only(self, candidate: Candidate) -> QuantizedGraph:
        """Return the candidate's architecture with its weights, in integers only.

        Raises:
            TrilobitError: a layer has no integer-only form.
        """
        shared = (self.run.task, self.calibration)
        return integer_only_network(self.run.family, self.supernet, candidate, *shared, sums=self.sums)

    def emit(self, candidate: Candidate) -> bytes:
        """Return the candidate's file, for the batch size of the device."""
        return self.file_of(self.network(candidate))

    def file_of(self, network: QuantizedGraph) -> bytes:
        """Return the file of a network, for the batch size of the device."""
        return emit(network, batch=self.run.config.device.batch, portable=self.portable)

    @property
    def metric(self) -> str:
        """Name of the main metric of the run's task."""
        return main_metric(self.run.task).name
