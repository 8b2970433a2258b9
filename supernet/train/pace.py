"""How fast a training goes: examples and operations per second, beside what the machine's matrix products
reach.
"""

import time
from dataclasses import dataclass

import torch

from supernet.train.cost import OPERATIONS
from supernet.train.loop import Progress

PATIENCE_S = 30.0  # a shorter training is not worth measuring the machine for
SIDE, REPEATS = 1_024, 3


@dataclass
class Pace:
    """The pace so far; the first step warms up and does not count.

    Attributes:
        device: that is trained on.
        called: what examples are called.
        start: when the first step was over; 0 before.
        seconds, examples, macs: since then.
        product_flops: operations per second of large matrix products here; 0 as long as it is not known.
    """

    device: torch.device
    called: str = "images"
    start: float = 0.0
    seconds: float = 0.0
    examples: int = 0
    macs: int = 0
    product_flops: float = 0.0

    def add(self, progress: Progress) -> None:
        """Count a step."""
        if not self.start:
            self.start = time.monotonic()
            return
        self.seconds = time.monotonic() - self.start
        self.examples += progress.images
        self.macs += progress.macs
        if not self.product_flops and self.seconds > PATIENCE_S:
            begun = time.monotonic()
            self.product_flops = product_flops(self.device)
            self.start += time.monotonic() - begun

    @property
    def examples_per_s(self) -> float:
        """Examples that steps have seen; each goes through several subnets."""
        return self.examples / max(self.seconds, 1e-9)

    @property
    def flops(self) -> float:
        """Operations per second: those of convolutions and linear layers, forward and backward."""
        return OPERATIONS * self.macs / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        """Return the pace in words."""
        examples = f"{self.examples_per_s:,.0f} {self.called}/s"
        if not self.product_flops:
            return examples
        return (
            f"{examples}, {self.flops / 1e9:,.0f} GFLOP/s (matrix products {self.product_flops / 1e9:,.0f})"
        )


def product_flops(device: torch.device) -> float:
    """Return the operations per second of fp32 matrix products of `SIDE` x `SIDE`: what convolutions could
    reach.
    """
    a = torch.ones(SIDE, SIDE, device=device)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2.0 * SIDE**3 / min(seconds)
