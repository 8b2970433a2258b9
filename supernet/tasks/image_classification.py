"""Images of classes: pixels, labels, cross-entropy and the share of right labels."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hw_profiles.streams import Stream, open_stream
from supernet.data.augment import cutout, mixup, shift_and_flip
from supernet.data.augmentation import Augmentation
from supernet.data.images import Images
from supernet.data.pixels import normalised, resize, to_tensor
from supernet.data.randaugment import rand_augment
from supernet.tasks.class_metrics import same_choice, values_of_classes
from supernet.tasks.losses import distillation_loss, label_loss
from supernet.tasks.metric import CLASSIFICATION, Metric
from supernet.tasks.task import Outputs


@dataclass(frozen=True, eq=False)
class ImageClassification:
    """A `Task`: which of some classes an image shows.

    Attributes:
        name: what to call it in reports.
        classes: class names; a label is an index into them.
        train, validation, test: the parts, all of one image size.
        mean, std: per channel, of the pixels of `train` scaled to 0..1.
    """

    metrics: ClassVar[tuple[Metric, ...]] = CLASSIFICATION

    name: str
    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return int(self.train.pixels.shape[3])

    def __str__(self) -> str:
        """Return what there is, in one line."""
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        counts = ", ".join(f"{len(images):,} for {name}" for name, images in parts.items())
        height, width = self.train.pixels.shape[1:3]
        colour = "grey" if self.channels == 1 else "RGB"
        return (
            f"{self.name}: images of {width} x {height} pixels, {self.channels} channel"
            f"{'' if self.channels == 1 else 's'} ({colour}), {len(self.classes)} classes; {counts}"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the pixels and labels of all parts, to notice that data or split have changed."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(repr(part.pixels.shape).encode())
            digest.update(np.ascontiguousarray(part.pixels).data)
            digest.update(np.ascontiguousarray(part.labels).data)
        return digest.hexdigest()[:16]

    # -- what networks read and learn ----------------------------------------------------------------------

    def inputs(self, examples: Images, size: int) -> Tensor:
        """Return (n, c, r, r) float32, channels last, of mean 0 and deviation 1 over `train`."""
        return normalised(to_tensor(examples), self.mean, self.std, size)

    def sized(self, inputs: Tensor, size: int) -> Tensor:
        """Return (n, c, h, w) as (n, c, r, r), channels last; by the same filter as for evaluation."""
        return resize(inputs, size)

    def training_batch(
        self, examples: Images, augmentation: Augmentation, *, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return augmented images (n, c, h, w), and labels (n,), or mixed ones (n, classes)."""
        generator = torch.Generator().manual_seed(seed)
        pixels = to_tensor(examples).to(device)
        if augmentation.randaugment:
            pixels = rand_augment(pixels, augmentation.randaugment, generator=generator)
        x = normalised(pixels, self.mean, self.std, pixels.shape[2])
        x = shift_and_flip(
            x,
            generator=generator,
            flip=augmentation.flip,
            pad=augmentation.pad,
            mirrored=augmentation.mirrored,
        )
        if augmentation.cutout:
            x = cutout(x, augmentation.cutout, generator=generator)
        targets = self.targets(examples).to(device)
        if augmentation.mixup:
            soft = nn.functional.one_hot(targets, len(self.classes)).float()
            x, targets = mixup(x, soft, augmentation.mixup, rng=open_stream(seed, Stream.MIXUP))
        return x, targets

    def targets(self, examples: Images) -> Tensor:
        """Return labels (n,)."""
        return torch.from_numpy(np.asarray(examples.labels, np.int64))

    def loss(self, outputs: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
        """Return the cross-entropy of logits (n, classes) with labels (n,) or shares (n, classes)."""
        return label_loss(outputs, targets, smoothing)

    def distillation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the cross-entropy of logits (n, classes) with the teacher's probabilities."""
        return distillation_loss(outputs, teacher)

    # -- how good they are ---------------------------------------------------------------------------------

    def evaluate(
        self, outputs: Outputs, examples: Images, original: Outputs | None = None
    ) -> dict[str, float]:
        """Return accuracy, calibration error and the accuracy on the worst class of logits (n, classes) and,
        compared with the original's logits, negative flips and agreement.
        """
        return values_of_classes(outputs, examples.labels, original)

    def scores(self, outputs: Outputs, examples: Images) -> NDArray[np.float64]:
        """Return (n,) 1 for each image whose label is right, else 0."""
        right: NDArray[np.bool_] = outputs.argmax(axis=1) == examples.labels
        return right.astype(np.float64)

    def agreement(self, outputs: Outputs, others: Outputs) -> float:
        """Return the share of images on which two networks name the same class."""
        return same_choice(outputs, others)
