"""What the simulation of a network answers to made-up examples."""

import torch

from nas.checks.check import Answers, AnyInput, Input, answers_of, made_up_images
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate

BATCH = 50


def expected_answers(network: QuantizedGraph, reads: AnyInput) -> Answers:
    """Return the labels and largest logits of the simulation on as many made-up examples as are enough."""
    if isinstance(reads, Input):  # the simulation reads normalised images, whatever the file does
        pixels = torch.from_numpy(reads.normalised(made_up_images(reads.asked, reads.shape)))
        examples = pixels.contiguous(memory_format=torch.channels_last)
    else:
        examples = torch.from_numpy(reads.made_up(reads.asked))
    batches = torch.split(examples, BATCH)
    return answers_of(torch.cat([simulate(network, batch) for batch in batches]).numpy())
