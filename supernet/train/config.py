"""How to train a supernet: frozen, checked, and the same thing in a file, on the command line and in a
checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from hw_profiles.durations import parse_time
from hw_profiles.errors import TrilobitError
from hw_profiles.options import OneOf, Range, Written, check
from supernet.data.augmentation import STRONGEST, Augmentation
from supernet.train.schedule import DECAYS

NONE = "none"  # no weights to start from
WIDEST = 8  # bits of the weights that the quantized phase stores
# settings that say how to compute, not what
HOST_ONLY = ("device", "amp", "evaluate_every", "checkpoint_s", "threads")


# settings that say what random weights are, with their defaults, which leave them as they are
FOR_RANDOM_WEIGHTS: Mapping[str, Any] = {"whitening": False, "initial": "random"}


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training part; 0 uses the first weights, those of `init`, as they are. With a
            budget they are what there is time for.
        budget: time for the training, such as `2h`, see `supernet.train.budget`; empty takes what it takes.
        init: the first weights: `none` for random ones, `shipped:NAME`, or the path of a checkpoint.
        initial: random weights where there is no `init`. Blocks with a shortcut always begin as identities;
            with `identity` all dense convolutions do, as far as their channels allow.
        whitening: have the stem give the principal components of image patches, at equal variance; its
            filters are then left alone.
        stem_epochs: passes after which the norm of a whitened stem is left alone too.
        batch_size: images per forward, of one process; every subnet of the step sees the same ones.
        accumulate: forwards per optimiser step, their gradients averaged: a batch that memory cannot hold.
            An optimiser step sees batch_size x accumulate x processes images.
        optimiser: `adamw`, `sgd` with Nesterov's momentum, or `muon`: that for dense filters, whose update is
            orthogonalised, and `sgd` for all the rest, see `supernet.train.optimiser`.
        learning_rate: peak; linear warm-up, then `decay` to 0. With `muon` that of filters: the share of its
            norm by which each of them changes in a step.
        momentum: of `sgd`, and of what `muon` leaves to it.
        filter_momentum: of the filters under `muon`.
        rest_rate: peak of what `muon` leaves to `sgd`: stem, depthwise filters, classifier, vectors.
        bias_factor: what the learning rate of biases, those of norms included, is multiplied by.
        weight_decay: on convolution and linear weights only, and not on filters that `muon` trains.
        warmup: share of the steps that warm up.
        decay: `cosine` or `linear`: how the learning rate falls afterwards.
        clip_norm: largest norm of the gradients of a step.
        ema: decay per step of the averaged weights that are used afterwards; 0 uses the last ones.
        ema_from: share of the steps after which averaging begins; it begins with the weights of then.
        schedule: `sandwich`: the largest, the smallest and random subnets in every step; `alternating`: the
            largest and `random_subnets` others, one of which is, in every second step, the smallest;
            `shrinking`: the largest alone first, then random ones of a space that opens kernel by depth by
            width; `largest`: no other, as a teacher is trained.
        random_subnets: subnets per step besides the largest and the smallest.
        alone: share of the steps, at the beginning, that train the largest subnet only.
        first_resolution: pixels that no subnet's resolution exceeds at the beginning, from which the limit
            climbs by the resolutions that the space has; 0 for no limit.
        full_resolution_at: share of the steps after which there is no such limit.
        teacher: path of a finished checkpoint of the same space, whose largest network the other subnets
            learn from; empty takes the largest subnet of the step itself.
        smoothing: label smoothing for the largest subnet.
        pad: random shift in pixels.
        flip: mirror half of the images.
        alternate: mirror the other half in every other epoch, instead of a random one each time.
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
    budget: Annotated[str, Written(parse_time, "a time such as 2h")] = ""
    init: str = NONE
    initial: Annotated[str, OneOf(("random", "identity"))] = "random"
    whitening: bool = False
    stem_epochs: Annotated[float, Range(0, 100_000, besides=math.inf)] = 3.0
    batch_size: Annotated[int, Range(1, 65_536)] = 64
    accumulate: Annotated[int, Range(1, 65_536)] = 1
    optimiser: Annotated[str, OneOf(("adamw", "sgd", "muon"))] = "adamw"
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-3
    momentum: Annotated[float, Range(0, 1, below=True)] = 0.9
    filter_momentum: Annotated[float, Range(0, 1, below=True)] = 0.6
    rest_rate: Annotated[float, Range(0, 100, above=True)] = 0.05
    bias_factor: Annotated[float, Range(0, 1_000, above=True)] = 1.0
    weight_decay: Annotated[float, Range(0, 100)] = 1e-4
    warmup: Annotated[float, Range(0, 1, below=True, share=True)] = 0.1
    decay: Annotated[str, OneOf(DECAYS)] = "cosine"
    clip_norm: Annotated[float, Range(0, 1e6, above=True)] = 5.0
    ema: Annotated[float, Range(0, 1, below=True)] = 0.0
    ema_from: Annotated[float, Range(0, 1, below=True, share=True)] = 0.0
    schedule: Annotated[str, OneOf(("sandwich", "alternating", "shrinking", "largest"))] = "sandwich"
    random_subnets: Annotated[int, Range(0, 1_000)] = 2
    alone: Annotated[float, Range(0, 1, share=True)] = 0.0
    first_resolution: Annotated[int, Range(0, 65_536)] = 0
    full_resolution_at: Annotated[float, Range(0, 1, share=True)] = 0.5
    teacher: str = ""
    smoothing: Annotated[float, Range(0, 1, below=True, share=True)] = 0.1
    pad: Annotated[int, Range(0, 1_024)] = 2
    flip: bool = False
    alternate: bool = False
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
        if self.budget and not self.epochs:
            raise TrilobitError(
                "train.budget is for a training, but train.epochs is 0, weights as they are; leave one out"
            )
        if self.init != NONE and any(getattr(self, n) != usual for n, usual in FOR_RANDOM_WEIGHTS.items()):
            raise TrilobitError(
                "train.whitening and train.initial are for a network without train.init, which brings its "
                f"first weights along, got init {self.init!r}; leave one out"
            )
        if self.alternate and not self.flip:
            raise TrilobitError("train.alternate needs train.flip = true: it says which images are mirrored")
        if self.schedule == "alternating" and not self.random_subnets:
            raise TrilobitError(
                "train.schedule = 'alternating' needs train.random_subnets of 1 or more, got 0; the largest "
                "alone is train.schedule = 'largest'"
            )

    @property
    def budget_s(self) -> float:
        """The budget in seconds; infinite without one."""
        return parse_time(self.budget) if self.budget else math.inf

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
