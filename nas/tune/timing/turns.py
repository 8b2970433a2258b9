"""Files timed in turns: one window of each a pass, so that all of them see the same disturbances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.runtime import Arrays, Artifact
from nas.run.tuned_document import MeasuredLatency


@dataclass(frozen=True)
class TimedFile:
    """What a file took.

    Attributes:
        latency: measured; None where it does not run.
        error: why it does not.
    """

    latency: MeasuredLatency | None = None
    error: str = ""


def time_in_turns(
    device: MeasuredDevice, files: Sequence[bytes], example: Arrays, plan: MeasurePlan
) -> list[TimedFile]:
    """Return what each file takes, beside the first one, the original.

    Args:
        example: what the files read.

    Raises:
        TrilobitError: the original does not run.
    """
    artifacts = [Artifact(content, example=example) for content in files]
    measured = device.transport.sample(device.runtime, artifacts, ["turns"] * len(files), plan)
    original = measured[0]
    if original.error is not None:
        raise TrilobitError(f"the original does not run: {original.error}")
    return [
        TimedFile(error=each.error) if each.error is not None else TimedFile(latency_of(each, original))
        for each in measured
    ]


def latency_of(measured: Measurement, original: Measurement) -> MeasuredLatency:
    """Return what a file took, beside the original in the same turns."""
    ratios = measured.array / original.array
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return MeasuredLatency(
        median_s=measured.median_s,
        iqr_s=measured.iqr_s,
        ratio=float(middle),
        ratio_iqr=float(high - low),
        samples_s=measured.samples_s,
        quiet_share=measured.quiet_share,
        load=measured.load,
    )
