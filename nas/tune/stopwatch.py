"""What policies take: some are timed as whole files, others are predicted from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import write_document
from nas.emit.rewrite_onnx import rewrite
from nas.run.documents import Genes, not_negative, read_optional
from nas.run.tuned_document import MeasuredLatency
from nas.tune.answers import first_example
from nas.tune.space import policy_of
from nas.tune.tuning import Tuning
from nas.tune.turns import latency_of, time_in_turns
from supernet.ptq.quantization import Quantization
from supernet.space.space import Genomes

Floats = NDArray[np.float64]
TOGETHER = 12  # policies that are timed in one set of turns, beside the original


@dataclass(frozen=True)
class TimedPolicy:
    """One policy that was timed.

    Attributes:
        genes: of the policy.
        latency: measured; None where its file does not run.
        error: why it does not.
    """

    genes: Genes
    latency: MeasuredLatency | None = None
    error: str = ""


@dataclass(frozen=True)
class LatencyFile:
    """`latency.json`: policies that were timed.

    Attributes:
        fingerprint: of what their times depend on.
        original_s: seconds of the original, by set of turns.
        policies: in the order in which they were timed.
    """

    SCHEMA: ClassVar[str] = "latency/1"
    REMEDY: ClassVar[str] = "delete it; `nas tune` times the policies again"

    fingerprint: str
    original_s: tuple[Annotated[float, not_negative], ...] = ()
    policies: tuple[TimedPolicy, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Stopwatch:
    """Times policies of a tune, and remembers them.

    Attributes:
        tuning: whose files.
        quantization: of its model.
    """

    tuning: Tuning
    quantization: Quantization

    def read(self) -> LatencyFile:
        """Return what was timed so far."""
        fingerprint = self.tuning.fingerprint("profile")
        known = read_optional(self.tuning.latency_path, LatencyFile)
        return known if known and known.fingerprint == fingerprint else LatencyFile(fingerprint)

    def of(self, genome: Genomes) -> MeasuredLatency | None:
        """Return what a policy (g,) took; None where it was not timed, or does not run."""
        genes = tuple(map(int, genome))
        return next((policy.latency for policy in self.read().policies if policy.genes == genes), None)

    def time(
        self, genomes: Genomes, on_done: Callable[[int], None] = lambda done: None, *, waiting_s: float = 0.0
    ) -> LatencyFile:
        """Time those of the policies (n, g) that were not timed yet; return all that were ever.

        Args:
            waiting_s: that may be spent in all only to find quiet windows.
        """
        known = self.read()
        seen = {policy.genes for policy in known.policies}
        rows = [row for row in genomes if tuple(map(int, row)) not in seen]
        on_done(len(genomes) - len(rows))
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            known = self._timed(known, some, waiting_s * len(some) / len(rows))
            write_document(self.tuning.latency_path, known)
            on_done(len(genomes) - len(rows) + min(start + TOGETHER, len(rows)))
        return known

    def _timed(self, known: LatencyFile, rows: Sequence[Genomes], waiting_s: float) -> LatencyFile:
        files = [rewrite(self.quantization, policy_of(self.tuning.space, row)) for row in rows]
        original, *measured = self.in_turns([self.tuning.original, *files], waiting_s)
        assert original.latency is not None
        timed = tuple(
            TimedPolicy(tuple(map(int, row)), result.latency, result.error)
            for row, result in zip(rows, measured, strict=True)
        )
        return LatencyFile(
            known.fingerprint, (*known.original_s, original.latency.median_s), (*known.policies, *timed)
        )

    def in_turns(self, files: Sequence[bytes], waiting_s: float) -> list[TimedPolicy]:
        """Return what files take, the original among them first.

        Args:
            waiting_s: that may be spent only to find quiet windows.
        """
        tuning = self.tuning
        example = first_example(tuning.parts.calibration)
        results = time_in_turns(tuning.device, files, example, replace(tuning.plan, waiting_s=waiting_s))
        original = results[0]
        return [
            TimedPolicy((), None, result.error)
            if result.error
            else TimedPolicy((), latency_of(result, original))
            for result in results
        ]


def timed_ratios(known: LatencyFile, genomes: Genomes) -> Floats:
    """Return (n,) the time of policies over the original's; infinite where a file does not run, NaN where it
    was not timed.
    """
    by_genes = {p.genes: p.latency.ratio if p.latency else np.inf for p in known.policies}
    return np.array([by_genes.get(tuple(map(int, row)), np.nan) for row in genomes])
