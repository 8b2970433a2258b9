"""What an exported network's latency is compared with, in one interleaved run."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from hw_profiles.graph.layer import FP32
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.runtime import Job
from nas.emit.to_onnx import emit, random_network
from nas.evaluation.builder import NetworkBuilder
from supernet.families.mobilenet_v2 import mobilenet_v2
from supernet.space.space import Candidate, SearchSpace, in_fp32
from supernet.tasks.task import reads

LARGEST, SAME = "largest/fp32", "same/fp32"
BASELINES = ("fp32", "int8")  # formats of a whole MobileNetV2


def fp32_candidate(space: SearchSpace, candidate: Candidate) -> Candidate | None:
    """Return the same architecture in fp32 throughout; None where the space has no such format."""
    if not any(FP32 in space.choices[column].options for column in space.format_columns):
        return None
    return space.candidate(in_fp32(space, np.array([candidate.genes], np.int16))[0])


def fp32_job(builder: NetworkBuilder, candidate: Candidate) -> Job:
    """Return a network of the space as a job that measures its file."""
    return Job(builder.run.family.workload(candidate), partial(builder.emit, candidate))


def baseline_jobs(builder: NetworkBuilder, candidate: Candidate) -> Mapping[str, Job]:
    """Return MobileNetV2 for images of a candidate's size, in each of `BASELINES`; with random weights, which
    do not change its time. Of text there is none.
    """
    run = builder.run
    data = run.task
    if reads(data) != "images":
        return {}
    resolution = run.family.resolution(candidate)
    network = mobilenet_v2(
        1.0,
        resolution=resolution,
        in_channels=data.channels,
        classes=len(data.classes),
        formats=BASELINES,
    )
    jobs = {}
    for fmt in BASELINES:
        work = network.workload(network.extreme("largest", fmt))
        jobs[f"mobilenet-v2/{fmt}"] = Job(work, partial(_random_file, work, run.config.device.batch))
    return jobs


def _random_file(work: Workload, batch: int) -> bytes:
    return emit(random_network(work, rng=np.random.default_rng(0)), batch=batch)
