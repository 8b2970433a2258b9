"""What the time of a model in fp32 becomes before any format has changed: prepared, with folded constants and
fused sums, or as a library.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from hw_profiles.documents import write_document
from nas.emit.norm_sums import kept_from_norms
from nas.run.documents import not_negative, read_optional
from nas.tune.setup.tuning import Tuning
from nas.tune.timing.turns import time_in_turns

LEAST_GAIN = 0.02  # of the time: less is what two measurements of one file differ by
PATIENCE_S = 2.0  # for a quiet moment: the two are compared pass by pass
ORIGINAL_KIND = "onnx"


@dataclass(frozen=True)
class PreparedTime:
    """`prepared.json`: how long the prepared model, or its library, takes in fp32.

    Attributes:
        ratio: its time over that of the file as it was given, in the same turns; 1 where that is not known.
    """

    SCHEMA: ClassVar[str] = "prepared/1"
    REMEDY: ClassVar[str] = "delete it: the model in fp32 is then the file as it was given"

    ratio: Annotated[float, not_negative] = 1.0

    @property
    def pays(self) -> bool:
        """Whether it is faster by more than measurements differ."""
        return self.ratio < 1 - LEAST_GAIN


def time_prepared(tuning: Tuning) -> PreparedTime:
    """Time the prepared model beside the file as it was given, and keep it.

    Runtimes that do not run the files of the original cannot compare the two, nor does a tune without times.

    Raises:
        TrilobitError: the original does not run.
    """
    if tuning.runtime.artifact == ORIGINAL_KIND and tuning.costs.timed:
        return time_unchanged(tuning, kept_from_norms(tuning.model.content))
    write_document(tuning.prepared_path, PreparedTime())
    return PreparedTime()


def time_unchanged(tuning: Tuning, content: bytes) -> PreparedTime:
    """Time the policy of fp32 throughout beside the file as it was given, and keep it.

    Raises:
        TrilobitError: the original does not run.
    """
    plan = replace(tuning.plan, waiting_s=min(tuning.plan.waiting_s, PATIENCE_S))
    files = [tuning.original, content]
    _, timed = time_in_turns(tuning.measured_device, files, tuning.example, plan)
    prepared = PreparedTime(timed.latency.ratio) if timed.latency is not None else PreparedTime()
    write_document(tuning.prepared_path, prepared)
    return prepared


def read_prepared(tuning: Tuning) -> PreparedTime:
    """Return what was measured; folders of earlier versions did not measure it."""
    return read_optional(tuning.prepared_path, PreparedTime) or PreparedTime()
