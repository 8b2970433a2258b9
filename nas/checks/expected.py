"""What the simulation of a network answers to made-up examples."""

import torch

from nas.checks.check import Answers, AnyInput, Input, answers_of, made_up_inputs
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate

BATCH = 50


def expected_answers(network: QuantizedGraph, reads: AnyInput) -> Answers:
    """Return the labels and largest logits of the simulation on as many made-up examples as are enough."""
    examples = torch.from_numpy(made_up_inputs(reads, reads.asked))
    if isinstance(reads, Input):
        examples = examples.contiguous(memory_format=torch.channels_last)
    batches = torch.split(examples, BATCH)
    return answers_of(torch.cat([simulate(network, batch) for batch in batches]).numpy())
