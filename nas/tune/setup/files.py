"""The files of policies, as they are run and timed."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.runtime import Artifact
from nas.tune.policies.space import policy_of
from nas.tune.setup.prepared import ORIGINAL_KIND, PreparedTime, read_prepared
from nas.tune.setup.tuning import Tuning
from predictors.latency.policy_terms import IN_INTEGERS, IN_REALS, Kernel, PolicyTerms
from supernet.formats.loading import load_format
from supernet.ptq.policy_graph import FOLLOWING
from supernet.ptq.quantization import Quantization
from supernet.space.space import Genomes


@dataclass(frozen=True, eq=False)
class PolicyFiles:
    """Writes the files of policies.

    Attributes:
        tuning: whose policies.
        quantization: of its model.
    """

    tuning: Tuning
    quantization: Quantization

    def content(self, genome: Genomes) -> bytes:
        """Return the file of a policy (g,)."""
        if self.is_original(genome):
            return self.original
        return self.tuning.write(self.quantization, policy_of(self.tuning.space, genome))

    def is_original(self, genome: Genomes) -> bool:
        """Return whether the file of a policy (g,) is what times are compared with: fp32 throughout, where
        files of the original's kind are what is tuned and preparing it gains nothing, or where that cannot be
        timed.
        """
        same_kind = self.tuning.runtime.artifact == ORIGINAL_KIND
        same = not self.tuning.times_original or (same_kind and not self.prepared.pays)
        return same and not genome.any()

    @cached_property
    def original(self) -> bytes:
        """What times are compared with: the file as it was given, or its library where that cannot be timed
        beside others.
        """
        if self.tuning.times_original:
            return self.tuning.original
        return self.tuning.write(self.quantization, {})

    @property
    def unchanged_ratio(self) -> float:
        """Time of the policy of fp32 throughout over that of the original."""
        unchanged = np.zeros(len(self.tuning.space.choices), np.int16)
        return 1.0 if self.is_original(unchanged) else self.prepared.ratio

    @cached_property
    def prepared(self) -> PreparedTime:
        """How long the prepared model takes in fp32."""
        return read_prepared(self.tuning)

    def artifact(self, genome: Genomes) -> Artifact:
        """Return the file of a policy (g,) with what it reads while it is timed."""
        return Artifact(self.content(genome), example=self.example)

    @property
    def example(self) -> dict[str, np.ndarray]:
        """What files read while they are timed."""
        return self.tuning.example

    @cached_property
    def terms(self) -> PolicyTerms:
        """What adds up to the time of a policy."""
        of = kernel_of if self.tuning.runtime.artifact == ORIGINAL_KIND else own_kernel_of
        return PolicyTerms.of(self.tuning.space, self.quantization.model, of)

    @property
    def device(self) -> MeasuredDevice:
        """What is measured."""
        return self.tuning.measured_device


def kernel_of(unit: str, name: str) -> Kernel:
    """Return how a unit is computed in a format: on integers where activations are codes, by a kernel of its
    own where a product is replaced, else in real numbers.
    """
    number_format = load_format(name)
    if number_format.weight.operand is not None:
        return Kernel(name)
    return IN_INTEGERS if _reads_codes(name) else IN_REALS


def own_kernel_of(unit: str, name: str) -> Kernel:
    """Return the same where kernels are our own: each format of integers has one."""
    kernel = kernel_of(unit, name)
    return Kernel(name, integer=True) if kernel == IN_INTEGERS and name != FOLLOWING else kernel


def _reads_codes(name: str) -> bool:
    """Return whether a format's activations are codes with stored scales."""
    activation = load_format(load_format(name).on).activation
    return activation is not None and activation.needs_scale
