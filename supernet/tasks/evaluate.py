"""From a candidate to a network with numbers in it, and how good that network is in simulation."""

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.graph.executor import layered
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.graph.subnet import Subnet, recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.ptq.integer_only import quantize_integer_only
from supernet.qat.deploy import deploy
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.metric import main_metric
from supernet.tasks.task import Examples, Outputs, Task, tokens_of

CALIBRATION_EXAMPLES = 2_048  # 256 cost the largest network of cifar-mbconv 1 to 1.4 points
CALIBRATION_TOKENS = 2**14  # of a task of text: 64 windows of 256
OBSERVED_IMAGES = 256  # of them, for activation ranges: every tensor of these is alive at once
CALIBRATION_BATCH = 128
EVALUATION_BATCH = 125  # tensors of more leave the cache: 500 took 2.5 times as long


def calibration_examples(task: Task, *, seed: int) -> Examples:
    """Return examples of the training part for batch-norm statistics and activation ranges; the same for
    every candidate.
    """
    length = tokens_of(task)
    count = max(1, CALIBRATION_TOKENS // length) if length else CALIBRATION_EXAMPLES
    rows = open_stream(seed, Stream.CALIBRATION).permutation(len(task.train))[:count]
    return task.train[rows]


def build_network(
    family: Family,
    net: nn.Module,
    candidate: Candidate,
    task: Task,
    calibration: Examples,
    quantizers: LearnedQuantizers | None = None,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
) -> QuantizedGraph:
    """Return the candidate's network, its batch norm recalibrated.

    Args:
        quantizers: learned scales of `net`: weights are rounded by them, and batch norm is recalibrated with
            everything rounded as the policy says. Without them the candidate is extracted, recalibrated in
            fp32, and rounded in the ranges that are observed: enough for 8 bits, not for 4.
        sums: of the device that it is made for; learned scales know theirs.
    """
    return network_builder(family, net, candidate, task, calibration, quantizers, sums=sums)(candidate)


def network_builder(
    family: Family,
    net: nn.Module,
    candidate: Candidate,
    task: Task,
    calibration: Examples,
    quantizers: LearnedQuantizers | None = None,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
) -> Callable[[Candidate], QuantizedGraph]:
    """Return `build_network` for the policies of one architecture, that of `candidate`; what they share is
    done once: without `quantizers` everything but rounding.
    """
    images = task.inputs(calibration, family.resolution(candidate))
    if quantizers is not None:
        elastic, scales, batches = layered(net), quantizers, torch.split(images, CALIBRATION_BATCH)
        return lambda policy: deploy(elastic, scales, family.workload(policy), batches)
    subnet = _extracted(family, net, candidate, images)
    ranges = observe(subnet, images[:OBSERVED_IMAGES])
    return lambda policy: quantize(subnet, family.workload(policy), ranges, sums)


def integer_only_network(
    family: Family,
    net: nn.Module,
    candidate: Candidate,
    task: Task,
    calibration: Examples,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
) -> QuantizedGraph:
    """Return the candidate's architecture in integers only, its batch norm recalibrated; see
    `supernet.ptq.integer_only`.

    Raises:
        TrilobitError: a layer has no integer-only form.
    """
    images = task.inputs(calibration, family.resolution(candidate))
    subnet = _extracted(family, net, candidate, images)
    return quantize_integer_only(subnet, images[:OBSERVED_IMAGES], sums)


def _extracted(family: Family, net: nn.Module, candidate: Candidate, images: Tensor) -> Subnet:
    """Return the candidate's network in fp32, its batch norm recalibrated."""
    subnet = family.extract(net, candidate)
    recalibrate(subnet, torch.split(images, CALIBRATION_BATCH))
    return subnet


def simulated_outputs(
    network: QuantizedGraph, examples: Examples, task: Task, fused: Collection[str] = ()
) -> Outputs:
    """Return (n, ...) what the simulated network says of examples.

    Args:
        fused: see `simulate`.
    """
    batches = torch.split(task.inputs(examples, network.workload.in_size), EVALUATION_BATCH)
    return np.asarray(torch.cat([simulate(network, batch, fused=fused) for batch in batches]).numpy())


def simulated_metric(network: QuantizedGraph, examples: Examples, task: Task) -> float:
    """Return the main metric of the simulated network."""
    outputs = simulated_outputs(network, examples, task)
    return task.evaluate(outputs, examples)[main_metric(task).name]
