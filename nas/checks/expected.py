"""What the simulation of a network answers to made-up images."""

import torch

from nas.checks.check import IMAGES, Answers, Input, answers_of, made_up_images
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate

BATCH = 50


def expected_answers(network: QuantizedGraph, image: Input) -> Answers:
    """Return the labels and largest logits of the simulation on `IMAGES` made-up images."""
    pixels = torch.from_numpy(image.normalised(made_up_images(IMAGES, image.shape)))
    batches = torch.split(pixels.contiguous(memory_format=torch.channels_last), BATCH)
    return answers_of(torch.cat([simulate(network, batch) for batch in batches]).numpy())
