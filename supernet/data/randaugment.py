"""RandAugment on whole batches: every image gets its own draws (Cubuk et al. 2020, arXiv:1909.13719).

The fourteen operations are Pillow's, as in the published code, bit for bit except for rounding of positions;
their strengths are those of torchvision. Images of one operation are computed together.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.data.augmentation import STRONGEST as STRONGEST

ROUNDS = 2  # operations per image, one after the other
_GREY = (19595, 38470, 7471)  # of ITU-R 601-2 luma, in 1/65536
_Operation = Callable[[Tensor, float, Tensor], Tensor]


def rand_augment(x: Tensor, magnitude: int, *, generator: torch.Generator) -> Tensor:
    """Change each image of `x` (n, c, h, w), uint8, by operations drawn for it.

    Args:
        magnitude: how much, 0 to `STRONGEST`.
        generator: on the CPU, whichever device `x` is on.
    """
    names = tuple(OPERATIONS)
    for _ in range(ROUNDS):
        drawn = torch.randint(0, len(names), (len(x),), generator=generator)
        signs = torch.where(torch.rand(len(x), generator=generator) < 0.5, -1.0, 1.0)
        augmented = x.clone()
        for number in sorted(set(drawn.tolist())):
            rows = torch.nonzero(drawn == number)[:, 0]
            indices = rows.to(x.device)
            change = OPERATIONS[names[number]]
            augmented[indices] = change(x[indices], magnitude / STRONGEST, signs[rows].to(x.device))
        x = augmented
    return x


# -- where the pixels are --------------------------------------------------------------------------------


def _moved(x: Tensor, rows: tuple[Tensor, ...], columns: tuple[Tensor, ...]) -> Tensor:
    """Return images whose pixel (i, j) is the one at (a i + b j + c) of `rows` and of `columns`,
    coefficients (n,) each. Borders are repeated, as for shifts.
    """
    n, _, height, width = x.shape
    i = (torch.arange(height, device=x.device, dtype=torch.float64) + 0.5).view(1, -1, 1)  # centres of pixels
    j = (torch.arange(width, device=x.device, dtype=torch.float64) + 0.5).view(1, 1, -1)
    sources = []
    for coefficients, size in ((rows, height), (columns, width)):
        a, b, c = (coefficient.double().view(-1, 1, 1) for coefficient in coefficients)
        sources.append((a * i + b * j + c).floor().clamp(0, size - 1).long())
    images = torch.arange(n, device=x.device).view(n, 1, 1)
    return x.permute(0, 2, 3, 1)[images, sources[0], sources[1]].permute(0, 3, 1, 2)


def _shear_x(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    ones, zeros = torch.ones_like(signs), torch.zeros_like(signs)
    return _moved(x, (ones, zeros, zeros), (0.3 * strength * signs, ones, zeros))


def _shear_y(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    ones, zeros = torch.ones_like(signs), torch.zeros_like(signs)
    return _moved(x, (ones, 0.3 * strength * signs, zeros), (zeros, ones, zeros))


def _translate_x(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    ones, zeros = torch.ones_like(signs), torch.zeros_like(signs)
    pixels = int(150 / 331 * x.shape[3] * strength)  # 150 of the 331 pixels of NASNet's ImageNet
    return _moved(x, (ones, zeros, zeros), (zeros, ones, pixels * signs))


def _translate_y(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    ones, zeros = torch.ones_like(signs), torch.zeros_like(signs)
    pixels = int(150 / 331 * x.shape[2] * strength)
    return _moved(x, (ones, zeros, pixels * signs), (zeros, ones, zeros))


def _rotate(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Return images turned anticlockwise about the centre by up to 30 degrees."""
    angle = math.radians(30 * strength) * signs.double()
    cos, sin = angle.cos(), angle.sin()
    row, column = x.shape[2] / 2, x.shape[3] / 2  # the centre stays where it is
    return _moved(
        x, (cos, sin, row - cos * row - sin * column), (-sin, cos, column + sin * row - cos * column)
    )


# -- what the pixels are ---------------------------------------------------------------------------------


def _blended(x: Tensor, degenerate: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Return images on the way from `degenerate` (integers) through `x` and beyond, by 0.1 to 1.9 of the way
    at most.
    """
    factor = (1 + 0.9 * strength * signs.double()).float().view(-1, 1, 1, 1)
    start = degenerate.float()
    return (start + factor * (x.float() - start)).clamp(0, 255).to(torch.uint8)  # cuts off, as Pillow does


def _grey(x: Tensor) -> Tensor:
    """Return (n, 1, h, w) luma as integers."""
    if x.shape[1] == 1:
        return x.int()
    weights = torch.tensor(_GREY, dtype=torch.int32, device=x.device).view(1, 3, 1, 1)
    return ((x.int() * weights).sum(1, keepdim=True) + 32768) >> 16


def _brightness(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    return _blended(x, torch.zeros_like(x), strength, signs)


def _color(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    return _blended(x, _grey(x).expand_as(x), strength, signs)


def _contrast(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    mean = _grey(x).double().mean((1, 2, 3), keepdim=True)
    return _blended(x, (mean + 0.5).floor().expand_as(x), strength, signs)


def _sharpness(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Return images blended with a 3x3 mean that counts the middle five times; borders stay as they are."""
    smooth = x.int()
    if min(x.shape[2:]) > 2:
        whole = x.float()
        box = 9 * F.avg_pool2d(whole, 3, 1)  # sums of integers: exact but for the division by 9
        total = box.round() + 4 * whole[..., 1:-1, 1:-1]
        smooth[..., 1:-1, 1:-1] = (total / 13 + 0.5).floor().int()
    return _blended(x, smooth, strength, signs)


def _posterize(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Keep the upper 8 to 4 bits."""
    bits = 8 - round(4 * strength)
    return x & (0xFF << (8 - bits) & 0xFF)


def _solarize(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Invert what is bright."""
    return torch.where(x >= math.ceil(255 * (1 - strength)), 255 - x, x)


def _autocontrast(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    values = x.flatten(2).double()
    low, high = values.amin(2)[..., None, None], values.amax(2)[..., None, None]
    # not 255 / tensor, which torch computes as 255 times a rounded reciprocal
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    stretched = (x.double() * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, x)


def _equalize(x: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Make each channel's histogram even."""
    n, channels, height, width = x.shape
    offsets = 256 * torch.arange(n * channels, device=x.device).view(n, channels, 1, 1)
    slots = (offsets + x).flatten()
    counts = torch.bincount(slots, minlength=256 * n * channels).view(-1, 256)
    brightest = 255 - (counts.flip(1) > 0).int().argmax(1, keepdim=True)
    step = (height * width - counts.gather(1, brightest)) // 255
    below = counts.cumsum(1) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255).to(torch.uint8)
    even = table.flatten()[slots].view(n, channels, height, width)
    return torch.where((step > 0).view(n, channels, 1, 1), even, x)


OPERATIONS: Mapping[str, _Operation] = {
    "identity": lambda x, strength, signs: x,
    "shear x": _shear_x,
    "shear y": _shear_y,
    "translate x": _translate_x,
    "translate y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
