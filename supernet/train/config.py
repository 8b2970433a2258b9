"""How to train a supernet: frozen, checked, and the same thing in a file, on the command line and in a
checkpoint.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from hw_profiles.errors import TrilobitError
from supernet.train.randaugment import STRONGEST

NEVER = ("checkpoint_s", math.inf)  # but at the end
_CHOICES = {
    "optimiser": ("adamw", "sgd"),
    "schedule": ("sandwich", "shrinking", "largest"),
    "device": ("auto", "cpu", "cuda"),
    "amp": ("auto", "off", "bf16", "fp16"),
}
# names, what holds of their values, and how errors say it
_BOUNDS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("batch_size", "accumulate", "learning_rate", "clip_norm", "threads"), lambda v: v > 0, "above 0"),
    (("momentum", "warmup", "smoothing", "ema"), lambda v: 0 <= v < 1, "at least 0 and below 1"),
    (("weight_decay", "random_subnets", "pad", "cutout", "mixup"), lambda v: v >= 0, "at least 0"),
    (("randaugment", "evaluate_every", "checkpoint_s"), lambda v: v >= 0, "at least 0"),
    (("randaugment",), lambda v: v <= STRONGEST, f"at most {STRONGEST}"),
)


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

    epochs: int = 36
    init: str = "none"
    batch_size: int = 64
    accumulate: int = 1
    optimiser: str = "adamw"
    learning_rate: float = 5e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip_norm: float = 5.0
    ema: float = 0.0
    schedule: str = "sandwich"
    random_subnets: int = 2
    teacher: str = ""
    smoothing: float = 0.1
    pad: int = 2
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0
    randaugment: int = 0
    device: str = "auto"
    amp: str = "auto"
    evaluate_every: int = 0
    checkpoint_s: float = 15.0
    threads: int = 1

    def __post_init__(self) -> None:
        self._check_epochs()
        for name, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value) and (name, value) != NEVER:
                raise TrilobitError(f"train.{name} must be a finite number, got {value}")
        for names, holds, wording in _BOUNDS:
            for name in names:
                if not holds(getattr(self, name)):
                    raise TrilobitError(f"train.{name} must be {wording}, got {getattr(self, name)}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise TrilobitError(
                    f"train.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    def _check_epochs(self) -> None:
        if self.epochs < 0 or (self.epochs == 0 and self.init == "none"):
            raise TrilobitError(
                f"train.epochs must be above 0, got {self.epochs}; give some (--epochs), or weights to use "
                "as they are (train.init, --init)"
            )
