"""What integer sums lack on processors whose kernels saturate.

ONNX Runtime's AVX2 kernels multiply unsigned codes with signed weights by vpmaddubsw: of the products of one
output, in the order (row of the filter, column, input channel), the first and the second are added in 16
bits, with saturation, then the third and the fourth, and so on; those sums are added in 32 bits. Zero points
are subtracted afterwards, so that padding counts as the zero point's code. Depthwise kernels add in 32 bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hw_profiles.graph.layer import Layer
from hw_profiles.reference.integer_sums import WIDEST_EXACT

LOWEST, HIGHEST = -(2**15), 2**15 - 1  # of 16 bits


def saturation_error(layer: Layer, x: Tensor, weight: Tensor, zero_point: int) -> Tensor:
    """Return what saturation adds to the accumulators (n, out, h, w) of a convolution or linear layer.

    Args:
        x: (n, in, h, w) codes in 0..255.
        weight: (out, in / groups, k, k) signed codes.
        zero_point: of the codes, with which the map is padded.
    """
    kernel, (edge, *_), (stride, *_) = weight.shape[-1], (0,), (1,)
    if layer.op == "Conv":
        (edge, *_), (stride, *_) = layer.values.integers("pads", 4), layer.values.integers("strides", 2)
    height, width = ((size + 2 * edge - kernel) // stride + 1 for size in x.shape[2:])
    error = torch.zeros(len(x), len(weight), height * width)
    if not layer.depthwise:
        padded = F.pad(x.float(), (edge,) * 4, value=float(zero_point))
        patches = F.unfold(padded, kernel, stride=stride).view(len(x), x.shape[1], kernel**2, -1)
        products = patches.transpose(1, 2).flatten(1, 2)  # (n, k * k * in, h * w)
        rows = weight.float().permute(0, 2, 3, 1).flatten(1)  # (out, k * k * in)
        error = _lost(products, rows)
    return error.view(len(x), len(weight), height, width)


def saturated_rows(x: Tensor, weight: Tensor) -> Tensor:
    """Return what saturation adds to the accumulators (n, out) of rows (n, in) of codes in 0..255 times a
    matrix (out, in) of signed codes.
    """
    return _lost(x.float()[..., None], weight.float())[..., 0]


def _lost(products: Tensor, rows: Tensor) -> Tensor:
    """Return what saturation adds to (n, out, l) sums of (n, in, l) codes times (out, in) weights."""
    error = products.new_zeros(len(products), len(rows), products.shape[2])
    for first in _wide_pairs(rows):
        pair = slice(first, first + 2)
        outputs = rows[:, pair].abs().sum(dim=1) > 2 * WIDEST_EXACT
        added = torch.einsum("npl,op->nol", products[:, pair], rows[outputs, pair])
        error[:, outputs] += added.clamp(LOWEST, HIGHEST) - added
    return error


def _wide_pairs(rows: Tensor) -> list[int]:
    """Return where the pairs of (out, k) weights begin that leave 16 bits for some inputs and outputs."""
    pairs = F.pad(rows, (0, rows.shape[1] % 2)).abs().view(len(rows), -1, 2).sum(dim=2)
    wide: list[int] = (2 * torch.nonzero((pairs > 2 * WIDEST_EXACT).any(dim=0)).flatten()).tolist()
    return wide
