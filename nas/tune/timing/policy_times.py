"""`PolicyTimes`: what was measured of policies' times, as a file that a measurement goes on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.tune.timing.batches import TimedBatch, batch_factors
from predictors.latency.policy_terms import Term
from supernet.space.space import Genomes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Conditions under which some policies were timed.

    Attributes:
        anchors_s: times of the anchors.
        quiet_share: of all windows, in how many nothing else used the core.
        load: of the machine; None where unknown.
        wall_s: how long it took.
    """

    anchors_s: tuple[float, ...]
    quiet_share: float
    load: float | None
    wall_s: float


@dataclass(frozen=True)
class PolicyTime:
    """A policy that was timed.

    Attributes:
        genes: of the policy.
        batch: in which one.
        seconds: as they were measured there; None where it failed.
        error: why; empty where it did not.
    """

    genes: tuple[int, ...]
    batch: int
    seconds: float | None
    error: str = ""


@dataclass(frozen=True)
class KernelSeconds:
    """What the kernels of a policy's file took inside it, by what they are of.

    Attributes:
        genes: of the policy.
        terms: kind, name and detail of each term.
        seconds: of each.
    """

    genes: tuple[int, ...]
    terms: tuple[tuple[str, str, str], ...]
    seconds: tuple[float, ...]

    @property
    def observed(self) -> dict[Term, float]:
        """Seconds by term."""
        return {Term(*term): s for term, s in zip(self.terms, self.seconds, strict=True)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class PolicyTimes:
    """All measured times of policies of one space on one device.

    Attributes:
        fingerprint: of the space.
        anchors: genes of the policies that are in every batch, the original first.
        kernels: of the policies whose kernels were timed.
        batches: in the order in which they were measured.
        policies: all of them.
    """

    SCHEMA: ClassVar[str] = "policy-times/1"
    REMEDY: ClassVar[str] = "delete it, and run `nas tune` again"

    fingerprint: str
    anchors: tuple[tuple[int, ...], ...]
    kernels: tuple[KernelSeconds, ...] = ()
    batches: tuple[Batch, ...] = ()
    policies: tuple[PolicyTime, ...] = ()

    def with_batch(self, genomes: Genomes, timed: TimedBatch) -> "PolicyTimes":
        """Return it with one more batch, of policies (n, g)."""
        batch = Batch(timed.anchors_s, timed.quiet_share, timed.load, timed.wall_s)
        rows = zip(genomes.tolist(), timed.seconds, timed.errors, strict=True)
        policies = [PolicyTime(tuple(genes), len(self.batches), s, error) for genes, s, error in rows]
        return replace(self, batches=(*self.batches, batch), policies=(*self.policies, *policies))

    @property
    def original_s(self) -> float:
        """Usual time of the original."""
        return float(np.median([batch.anchors_s[0] for batch in self.batches]))

    def rows(self) -> tuple[Genomes, Floats]:
        """Return the policies (n, g) that could be timed, and their seconds (n,) at the machine's usual
        speed: the anchors once, then all others; a policy that was timed twice is there twice.
        """
        anchors_s = np.array([batch.anchors_s for batch in self.batches])
        factors = batch_factors(anchors_s)
        timed = [policy for policy in self.policies if policy.seconds is not None]
        genes = [*self.anchors, *(policy.genes for policy in timed)]
        own = [policy.seconds / factors[policy.batch] for policy in timed if policy.seconds is not None]
        return np.array(genes, np.int16), np.concatenate([np.median(anchors_s, axis=0), own])

    def missing(self, genomes: Genomes) -> Genomes:
        """Return those of some policies (n, g) that were not timed."""
        known = {policy.genes for policy in self.policies} | set(self.anchors)
        return np.array([row for row in genomes.tolist() if tuple(row) not in known], np.int16).reshape(
            -1, genomes.shape[1]
        )


def kernel_seconds(genome: Genomes, observed: Mapping[Term, float]) -> KernelSeconds:
    """Return what was observed of a policy (g,), ready to be stored."""
    terms: Sequence[Term] = list(observed)
    named: Any = tuple((term.kind, term.name, term.detail) for term in terms)
    return KernelSeconds(tuple(genome.tolist()), named, tuple(observed[term] for term in terms))
