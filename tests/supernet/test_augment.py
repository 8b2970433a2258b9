"""Augmented batches equal what is written out image by image, and depend on the generator only."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from supernet.data.augment import cutout, mixup, shift_and_flip


@given(
    n=st.integers(0, 5),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    flip=st.booleans(),
    pad=st.integers(0, 4),
)
def test_shifting_keeps_shape_and_values(
    n: int, channels: int, size: tuple[int, int], flip: bool, pad: int
) -> None:
    x = torch.randn(n, channels, *size)
    y = shift_and_flip(x, generator=torch.Generator().manual_seed(0), flip=flip, pad=pad)
    assert y.shape == x.shape
    assert torch.isin(y, x).all()
    assert torch.equal(y, shift_and_flip(x, generator=torch.Generator().manual_seed(0), flip=flip, pad=pad))


def test_shifting_without_shift_or_flip_is_identity() -> None:
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(shift_and_flip(x, generator=torch.Generator(), flip=False, pad=0), x)


def test_shifting_equals_pad_and_crop() -> None:
    x, pad = torch.randn(16, 1, 6, 6), 2
    y = shift_and_flip(x, generator=torch.Generator().manual_seed(1), flip=False, pad=pad)
    padded = torch.nn.functional.pad(x, (pad,) * 4, mode="replicate")
    shifts = (
        torch.randint(-pad, pad + 1, (2, 16, 1), generator=torch.Generator().manual_seed(1))[..., 0] + pad
    )
    for image, crop, row, column in zip(padded, y, *shifts.tolist(), strict=True):
        assert torch.equal(image[:, row : row + 6, column : column + 6], crop)


def test_shifting_mirrors_half() -> None:
    x = torch.arange(8.0).expand(400, 1, 8, 8)
    y = shift_and_flip(x, generator=torch.Generator().manual_seed(0), flip=True, pad=0)
    mirrored = (y == x.flip(3)).all(dim=(1, 2, 3))
    assert ((y == x).all(dim=(1, 2, 3)) | mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_cutout_blanks_one_square_of_each_image() -> None:
    x = torch.ones(64, 3, 16, 16)
    y = cutout(x, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(y, cutout(x, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(y[:, :1].expand_as(y), y)  # in every channel
    for image in y[:, 0]:
        rows, columns = torch.nonzero(image == 0, as_tuple=True)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert len(rows) == height * width  # a full rectangle
        assert 3 <= height <= 6
        assert 3 <= width <= 6  # at least half where the centre lies at a border


def test_mixup_mixes_images_and_targets_alike() -> None:
    targets = torch.eye(8)
    x = targets.view(8, 8, 1, 1).clone()  # an image that is its own target
    mixed, soft = mixup(x, targets, 0.4, rng=np.random.default_rng(0))
    torch.testing.assert_close(mixed.view(8, 8), soft)
    torch.testing.assert_close(soft.sum(1), torch.ones(8))
    assert not torch.equal(soft, targets)
