"""Files timed in turns: one window of each a pass, so that all of them see the same disturbances."""

from collections.abc import Sequence

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.device import Device, MeasuredDevice
from hw_profiles.runtimes.runtime import Arrays, Artifact
from nas.run.tuned_document import MeasuredLatency


def time_in_turns(
    device: Device, files: Sequence[bytes], example: Arrays, plan: MeasurePlan
) -> list[Measurement]:
    """Return samples of each file, paired by pass; a file that fails has its error.

    Args:
        example: what the files read.
    """
    assert isinstance(device, MeasuredDevice)
    artifacts = [Artifact(content, example=example) for content in files]
    return device.transport.sample(device.runtime, artifacts, ["turns"] * len(files), plan)


def latency_of(measured: Measurement, original: Measurement) -> MeasuredLatency:
    """Return what a file took, beside the original in the same turns.

    Raises:
        TrilobitError: one of them does not run.
    """
    for each in (measured, original):
        if each.error is not None:
            raise TrilobitError(f"the file does not run: {each.error}")
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
