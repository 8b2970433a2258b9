"""How to train a supernet: frozen, checked, and the same thing in a file, on the command line and in a
checkpoint.
"""

from dataclasses import dataclass

from hw_profiles.errors import TrilobitError

_CHOICES = {
    "optimiser": ("adamw", "sgd"),
    "schedule": ("sandwich", "shrinking", "largest"),
}
_POSITIVE = ("epochs", "batch_size", "accumulate", "learning_rate", "clip_norm", "threads")
_SHARES = ("warmup", "smoothing", "ema")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: passes over the training part.
        batch_size: images per forward; every subnet of the step sees the same ones.
        accumulate: forwards per optimiser step, their gradients averaged: a batch that memory cannot hold.
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
        smoothing: label smoothing for the largest subnet.
        pad: random shift in pixels.
        flip: mirror half of the images.
        cutout: side in pixels of the square that is blanked out; 0 for none.
        mixup: parameter of the Beta distribution that two images are mixed by; 0 for none.
        checkpoint_s: seconds between checkpoints.
        threads: of torch, set by the command line. Small networks gain little from a second one, and lose ten
            times as much as soon as anything else wants its core.

    Raises:
        TrilobitError: a value that cannot train, which names what is allowed.
    """

    epochs: int = 36
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
    smoothing: float = 0.1
    pad: int = 2
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0
    checkpoint_s: float = 15.0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise TrilobitError(f"train.{name} must be above 0, got {getattr(self, name)}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise TrilobitError(f"train.{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise TrilobitError(
                    f"train.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("random_subnets", "pad", "cutout", "mixup"):
            if getattr(self, name) < 0:
                raise TrilobitError(f"train.{name} must be at least 0, got {getattr(self, name)}")
