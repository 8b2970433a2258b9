"""What a task's quality is measured by: the names, units and directions of its metrics. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Metric:
    """One number of a network's quality on some examples.

    Attributes:
        name: for example `accuracy`.
        unit: of every value of it: `fraction`, or any other word.
        direction: `max` where more is better.
        meaning: what it is, in half a line.
        share: whether it is the share of examples of which something holds: its standard error is known.
        aliases: other names that people may write; `-` and `_` are the same in all of them.
    """

    name: str
    unit: str
    direction: Direction
    meaning: str = ""
    share: bool = False
    aliases: tuple[str, ...] = ()


class Named(Protocol):
    """What has the name of a metric."""

    @property
    def name(self) -> str:
        """For example `accuracy`."""
        ...


M = TypeVar("M", bound=Named)


class Quality(Protocol):
    """How good networks are on examples: a task with data of its own, or fidelity to one network."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What `evaluate` gives, the main one first: it is what is predicted of networks before they are
        measured.
        """
        ...

    def evaluate(self, outputs: Any, examples: Any, original: Any) -> dict[str, float]:
        """Return the metrics by name.

        Args:
            outputs: what a network says of n examples.
            examples: n of them.
            original: what the network says that others are compared with.
        """
        ...


def main_metric(quality: Quality) -> Metric:
    """Return the metric that networks are compared by before all others."""
    return quality.metrics[0]


ACCURACY = Metric("accuracy", "fraction", "max", "share of right answers", share=True)
FLIPS = Metric(
    "flips",
    "fraction",
    "min",
    "share of examples that the original has right, and this network wrong",
    share=True,
    aliases=("negative-flips",),
)
AGREEMENT = Metric(
    "agreement", "fraction", "max", "share of examples with the answer of the original", share=True
)
CALIBRATION = Metric(
    "calibration",
    "fraction",
    "min",
    "expected calibration error of the class probabilities",
    aliases=("calibration-error",),
)
WORST_CLASS = Metric(
    "worst_class", "fraction", "max", "accuracy on the class that has the least, or agreement without labels"
)
KL = Metric(
    "kl",
    "nats",
    "min",
    "mean divergence of the class probabilities from those of the original",
    aliases=("kl-divergence",),
)
STEPS = Metric("steps", "fraction", "max", "share of steps of sequences with the choice of the original")
SNR = Metric("snr", "dB", "max", "signal-to-noise ratio of the output against that of the original")
BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "bits",
    "min",
    "mean binary logarithm of one over the probability of the byte that follows",
    aliases=("bpb",),
)
PERPLEXITY = Metric("perplexity", "choices", "min", "2 to the bits per byte")

# of images, or texts, of classes, the main one first
CLASSIFICATION: tuple[Metric, ...] = (ACCURACY, FLIPS, AGREEMENT, CALIBRATION, WORST_CLASS)
FIDELITY: tuple[Metric, ...] = (*CLASSIFICATION, KL, STEPS, SNR)  # of networks made from another one
METRICS: tuple[Metric, ...] = (*FIDELITY, BITS_PER_BYTE, PERPLEXITY)  # all that are known by name

# Of tokens: shares of tokens, whose standard errors are not those of as many independent draws.
TOKEN_CLASSIFICATION: tuple[Metric, ...] = (
    replace(ACCURACY, meaning="share of tokens of which the class is right", share=False),
    replace(
        FLIPS, meaning="share of tokens that the original has right, and this network wrong", share=False
    ),
    replace(AGREEMENT, meaning="share of tokens with the class of the original", share=False),
    CALIBRATION,
    WORST_CLASS,
)
NEXT_BYTE = replace(ACCURACY, meaning="share of bytes that are the first choice", share=False)
LANGUAGE_MODELLING: tuple[Metric, ...] = (
    BITS_PER_BYTE,
    PERPLEXITY,
    NEXT_BYTE,
    replace(AGREEMENT, meaning="share of positions with the first choice of the original", share=False),
    KL,
)


def smooth_metric(metrics: Sequence[M]) -> M:
    """Return the metric that says smoothly how far answers are from those of the original, which is what is
    predicted: the divergence, else the signal-to-noise ratio, else the first.
    """
    by_name = {metric.name: metric for metric in metrics}
    return by_name.get(KL.name) or by_name.get(SNR.name) or metrics[0]
