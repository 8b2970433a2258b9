"""How to train a supernet: frozen, checked, and the same thing in a file, on the command line and in a
checkpoint.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from hw_profiles.errors import TrilobitError
from hw_profiles.options import OneOf, Range, check
from supernet.data.augmentation import STRONGEST, Augmentation

NONE = "none"  # no weights to start from
WIDEST = 8  # bits of the weights that the quantized phase stores
# settings that say how to compute, not what
HOST_ONLY = ("device", "amp", "evaluate_every", "checkpoint_s", "threads")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training part; 0 uses the first weights, those of `init`, as they are.
        init: the first weights: `none` for random ones, `shipped:NAME`, or the path of a checkpoint.
        batch_size: images per forward, of one process; every subnet of the step sees the same ones.
        accumulate: forwards per optimiser step, their gradients averaged: a batch that memory cannot hold.
            An optimiser step sees batch_size x accumulate x processes images.
        optimiser: `adamw`, or `sgd` with Nesterov's momentum.
        learning_rate: peak; linear warm-up, then cosine to 0.
        momentum: of `sgd`.
        weight_decay: on convolution and linear weights only.
        warmup: share of the steps that warm up.
        clip_norm: largest norm of the gradients of a step.
        ema: decay per step of the averaged weights that are used afterwards; 0 uses the last ones.
        schedule: `sandwich`: the largest, the smallest and random subnets in every step; `shrinking`: the
            largest alone first, then random ones of a space that opens kernel by depth by width; `largest`:
            no other, as a teacher is trained.
        random_subnets: subnets per step besides the largest and the smallest.
        teacher: path of a finished checkpoint of the same space, whose largest network the other subnets
            learn from; empty takes the largest subnet of the step itself.
        smoothing: label smoothing for the largest subnet.
        pad: random shift in pixels.
        flip: mirror half of the images.
        cutout: side in pixels of the square that is blanked out; 0 for none.
        mixup: parameter of the Beta distribution that two images are mixed by; 0 for none.
        randaugment: strength of RandAugment, 1 to 30; 0 for none.
        device: `cpu`, `cuda`, or `auto`: CUDA where there is one.
        amp: numbers of the activations: `bf16`, `fp16`, `off` (fp32), or `auto`: fp32 on a CPU, bf16 on a GPU
            that has it and fp16 on others.
        evaluate_every: epochs between two looks at the accuracy on search-validation; 0 for none.
        checkpoint_s: seconds between checkpoints.
        threads: of torch, set by the command line. Small networks gain little from a second one, and lose ten
            times as much as soon as anything else wants its core.

    Raises:
        TrilobitError: a value that cannot train, which names what is allowed.
    """

    epochs: Annotated[int, Range(0, 100_000)] = 36
    init: str = NONE
    batch_size: Annotated[int, Range(1, 65_536)] = 64
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    optimiser: Annotated[str, OneOf(("adamw", "sgd"))] = "adamw"
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-3
    momentum: Annotated[float, Range(0, 1, below=True)] = 0.9
    weight_decay: Annotated[float, Range(0, 100)] = 1e-4
    warmup: Annotated[float, Range(0, 1, below=True, share=True)] = 0.1
    clip_norm: Annotated[float, Range(0, 1e6, above=True)] = 5.0
    ema: Annotated[float, Range(0, 1, below=True)] = 0.0
    schedule: Annotated[str, OneOf(("sandwich", "shrinking", "largest"))] = "sandwich"
    random_subnets: Annotated[int, Range(0, 1_000)] = 2
    teacher: str = ""
    smoothing: Annotated[float, Range(0, 1, below=True, share=True)] = 0.1
    pad: Annotated[int, Range(0, 1_024)] = 2
    flip: bool = False
    cutout: Annotated[int, Range(0, 4_096)] = 0
    mixup: Annotated[float, Range(0, 100)] = 0.0
    randaugment: Annotated[int, Range(0, STRONGEST)] = 0
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))] = "auto"
    amp: Annotated[str, OneOf(("auto", "off", "bf16", "fp16"))] = "auto"
    evaluate_every: Annotated[int, Range(0, 100_000)] = 0
    checkpoint_s: Annotated[float, Range(0, 1e9, besides=math.inf)] = 15.0
    threads: Annotated[int, Range(1, 1_024)] = 1

    def __post_init__(self) -> None:
        check(self, "train")
        if self.epochs == 0 and self.init == NONE:
            raise TrilobitError(
                "train.epochs must be above 0, got 0; give some (--epochs), or weights to use as they are "
                "(train.init, --init)"
            )

    @property
    def augmentation(self) -> Augmentation:
        """How training images are changed."""
        return Augmentation(self.pad, self.flip, self.cutout, self.mixup, self.randaugment)


@dataclass(frozen=True)
class QuantizedPhase:
    """How to train the quantized networks of a supernet.

    Attributes:
        epochs: passes over the training part; a share of one is enough for many images.
        batch_size: images per step.
        learning_rate: peak, of the weights, by Adam; linear warm-up, then cosine to 0.
        scale_learning_rate: peak, of the logarithms of the scales, before the factor of each width.
        weight_decay: on convolution and linear weights only; scales have none.
        warmup: share of the steps that warm up.
        clip_norm: largest norm of the gradients of one width.
        widths: widths of weights in bits; empty for all that the space has.
        mixed: networks of mixed widths per step.
        probes: random vectors of the Hessian's trace; its images are one batch.
        calibration: images that first scales are found on.
        checkpoint_s: seconds between checkpoints.

    Raises:
        TrilobitError: a value that cannot train, which names what is allowed.
    """

    epochs: Annotated[float, Range(0, 10_000, above=True)] = 4.0
    batch_size: Annotated[int, Range(1, 65_536)] = 64
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-4
    scale_learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-3
    weight_decay: Annotated[float, Range(0, 100)] = 5e-5
    warmup: Annotated[float, Range(0, 1, below=True, share=True)] = 0.05
    clip_norm: Annotated[float, Range(0, 1e6, above=True)] = 5.0
    widths: Annotated[tuple[int, ...], Range(2, WIDEST)] = ()
    mixed: Annotated[int, Range(0, 1_000)] = 1
    probes: Annotated[int, Range(1, 10_000)] = 8
    calibration: Annotated[int, Range(1, 100_000)] = 128
    checkpoint_s: Annotated[float, Range(0, 1e9, besides=math.inf)] = 15.0

    def __post_init__(self) -> None:
        check(self, "quantized")
        if len(set(self.widths)) < len(self.widths):
            raise TrilobitError(f"quantized.widths must name each once, got {self.widths}")
