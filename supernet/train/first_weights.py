"""First weights that know something: a stem that whitens patches of the data, convolutions that pass on what
they read.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.streams import Stream, open_stream
from supernet.derive.network import ElasticNet
from supernet.layers.elastic import ElasticConvNorm
from supernet.tasks.task import Task
from supernet.train.optimiser import dense_filters

IMAGES, CHUNK = 2_000, 250  # that patches come from, and of them at a time
EPS = 5e-4  # added to the variance of a patch: what has less than this is noise


def stem_of(net: nn.Module) -> ElasticConvNorm:
    """Return the convolution that reads the image.

    Raises:
        TrilobitError: it is none over all channels with a batch norm.
    """
    assert isinstance(net, ElasticNet)
    stem = net.get_submodule(net.ends[0])
    if not isinstance(stem, ElasticConvNorm) or stem.depthwise:
        raise TrilobitError(
            f"train.whitening: {net.ends[0]} is no convolution over all channels with a batch norm; "
            "leave whitening out"
        )
    return stem


def pass_on(net: nn.Module) -> None:
    """Have each dense convolution of several pixels give, in the centre of its first channels, what it reads;
    output channels beyond those that it reads keep their random filters (Jordan 2024, arXiv:2404.00498).
    """
    for weight in dense_filters(net):
        if weight.shape[-1] > 1:
            with torch.no_grad():
                nn.init.dirac_(weight[: weight.shape[1]])


def whiten(net: nn.Module, task: Task, resolution: int, *, seed: int) -> None:
    """Set the filters of the stem to the principal components of the image patches that it reads, each
    divided by its deviation and each with both signs in turn: what a prefix of its channels gives is white,
    but for the pairs.

    They are found on some images of the training part, as the network sees them at `resolution`. Channels
    beyond twice the components keep their random filters. (Jordan 2024, arXiv:2404.00498; the order by
    variance and the pairs are for prefixes.)

    Raises:
        TrilobitError: the stem is none over all channels with a batch norm.
    """
    weight = stem_of(net).weight
    rows = open_stream(seed, Stream.WHITENING).permutation(len(task.train))[:IMAGES]
    chunks = (rows[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK))
    images = (task.inputs(task.train[chunk], resolution) for chunk in chunks)
    components = whitening_filters(patch_covariance(images, weight.shape[-1]))
    paired = torch.stack([components, -components], dim=1).flatten(0, 1)[: len(weight)]
    with torch.no_grad():
        weight[: len(paired)] = paired.view(len(paired), *weight.shape[1:]).to(weight)


def patch_covariance(batches: Iterable[Tensor], kernel: int) -> Tensor:
    """Return (d, d) the covariance, d being channels * kernel^2, of all patches of images (n, c, h, w)."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        patches = F.unfold(images.double(), kernel).movedim(1, 2).flatten(0, 1)
        count += len(patches)
        total, products = total + patches.sum(0), products + patches.T @ patches
    mean = total / count
    return products / count - torch.outer(mean, mean)


def whitening_filters(covariance: Tensor) -> Tensor:
    """Return (d, d) the eigenvectors as rows, those of the largest eigenvalues first, each divided by the
    root of its eigenvalue; of each the largest entry is positive.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0), vectors.flip(1).T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    filters: Tensor = vectors * largest.sign() / (values.clamp_min(0) + EPS).sqrt()[:, None]
    return filters
