"""From a candidate to a network with numbers in it, and that network's accuracy in simulation."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from supernet.data.dataset import Dataset, to_batch
from supernet.data.images import Images
from supernet.families.family import Family
from supernet.graph.executor import layered
from supernet.graph.quantized_graph import Network
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.qat.deploy import deploy
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate

CALIBRATION_IMAGES = 2_048  # 256 cost the largest network of cifar-mbconv 1 to 1.4 points
OBSERVED_IMAGES = 256  # of them, for activation ranges: every tensor of these is alive at once
CALIBRATION_BATCH = 128
EVALUATION_BATCH = 125  # tensors of more leave the cache: 500 took 2.5 times as long


def calibration_images(dataset: Dataset, *, seed: int) -> Images:
    """Images of the training part for batch-norm statistics and activation ranges; the same for every
    candidate.
    """
    part = dataset.train
    rows = open_stream(seed, Stream.CALIBRATION).permutation(len(part.labels))[:CALIBRATION_IMAGES]
    return Images(part.pixels[rows], part.labels[rows])


def build_network(
    family: Family,
    net: nn.Module,
    candidate: Candidate,
    dataset: Dataset,
    calibration: Images,
    quantizers: LearnedQuantizers | None = None,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
) -> Network:
    """The candidate's network, its batch norm recalibrated.

    Args:
        quantizers: learned scales of `net`: weights are rounded by them, and batch norm is recalibrated with
            everything rounded as the policy says. Without them the candidate is extracted, recalibrated in
            fp32, and rounded in the ranges that are observed: enough for 8 bits, not for 4.
        sums: of the device that it is made for; learned scales know theirs.
    """
    return network_builder(family, net, candidate, dataset, calibration, quantizers, sums=sums)(candidate)


def network_builder(
    family: Family,
    net: nn.Module,
    candidate: Candidate,
    dataset: Dataset,
    calibration: Images,
    quantizers: LearnedQuantizers | None = None,
    *,
    sums: IntegerSums = IntegerSums.EXACT,
) -> Callable[[Candidate], Network]:
    """`build_network` for the policies of one architecture, that of `candidate`; what they share is done
    once: without `quantizers` everything but rounding.
    """
    images = to_batch(calibration, dataset, family.resolution(candidate))
    batches = torch.split(images, CALIBRATION_BATCH)
    if quantizers is not None:
        elastic, scales = layered(net), quantizers
        return lambda policy: deploy(elastic, scales, family.workload(policy), batches)
    subnet = family.extract(net, candidate)
    recalibrate(subnet, batches)
    ranges = observe(subnet, images[:OBSERVED_IMAGES])
    return lambda policy: quantize(subnet, family.workload(policy), ranges, sums)


def simulated_predictions(network: Network, images: Images, dataset: Dataset) -> np.ndarray:
    """(n,) predicted labels of the simulated network."""
    pixels = to_batch(images, dataset, network.workload.in_shape[1])
    logits = torch.cat([simulate(network, batch) for batch in torch.split(pixels, EVALUATION_BATCH)])
    return logits.argmax(dim=1).numpy()


def simulated_accuracy(network: Network, images: Images, dataset: Dataset) -> float:
    """Share of right labels, in 0..1."""
    return float((simulated_predictions(network, images, dataset) == images.labels).mean())
