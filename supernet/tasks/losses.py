"""Losses: labels for the largest subnet, its predictions for the others."""

import torch.nn.functional as F
from torch import Tensor


def label_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with label smoothing.

    (n, classes), and labels (n,) or probabilities (n, classes) -> scalar.
    """
    return F.cross_entropy(logits, targets, label_smoothing=smoothing)


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy to the teacher's detached soft predictions: in-place distillation.

    (n, classes) each -> scalar. Yu et al. 2020 (BigNAS), arXiv:2003.11142, section 3.1.
    """
    return F.cross_entropy(logits, teacher.detach().softmax(dim=1))
