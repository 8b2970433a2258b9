"""Rounds weights one input after the other, the error of each made up for by those that follow: GPTQ (Frantar
et al. 2022, arXiv:2210.17323), and then passes of coordinate descent, of which none makes the error larger.

Inputs that are alike, such as neighbouring pixels, carry the sum of their weights' errors: rounded to nearest
these add up, here they cancel.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from supernet.ptq.moments import Moments
from supernet.ptq.product import Product
from supernet.ptq.weight_grid import WeightGrid

Wide = NDArray[np.float64]

LEARNED_MACS_PER_S = 4e9  # of one core, about: it only says how much is learned
BLOCK = 64  # inputs whose errors are spread over the rest at once
PASSES = 4


def round_with_feedback(moments: Moments, grid: WeightGrid) -> Wide:
    """Return values (groups, out / groups, k) of the grid, of less error than the nearest ones.

    Args:
        grid: its arrays in that shape.
    """
    nearest = grid.values(grid.codes(moments.target))
    swept = _greedy(moments, grid)
    better = moments.errors(swept) < moments.errors(nearest)
    return _descend(moments, grid, np.where(better[..., None], swept, nearest))


def learning_macs(product: Product) -> int:
    """Return about how many multiply-adds it takes to round a unit's weight with feedback."""
    groups, outputs, k = product.weight.shape
    return int(groups * k * k * (outputs * (PASSES + 2) + k))


def by_group(grid: WeightGrid, shape: tuple[int, ...]) -> WeightGrid:
    """Return a grid with its scales in the shape (groups, out / groups, k)."""
    return replace(grid, scales=grid.scales.reshape(shape), zeros=grid.zeros.reshape(shape))


def _greedy(moments: Moments, grid: WeightGrid) -> Wide:
    """Go through the inputs in order; spread each one's error by the Cholesky factor of the inverse."""
    k = moments.hessian.shape[-1]
    identity = np.broadcast_to(np.eye(k), moments.hessian.shape)
    inverse = np.linalg.solve(moments.hessian, identity)
    factor = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)  # upper
    weight = moments.target.copy()
    result = np.empty_like(weight)
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        errors = np.empty((*weight.shape[:2], end - start))
        for j in range(start, end):
            result[..., j] = _nearest(grid, weight[..., j], j)
            error = (weight[..., j] - result[..., j]) / factor[:, j, j][:, None]
            weight[..., j:end] -= error[..., None] * factor[:, None, j, j:end]
            errors[..., j - start] = error
        weight[..., end:] -= errors @ factor[:, start:end, end:]
    return result


def _descend(moments: Moments, grid: WeightGrid, values: Wide) -> Wide:
    """Set each weight to the best value that the others leave it, several times."""
    k = values.shape[-1]
    diagonal = np.einsum("gkk->gk", moments.hessian)
    gradient = (values - moments.target) @ moments.hessian
    values = values.copy()
    for _ in range(PASSES):
        changed = False
        for start in range(0, k, BLOCK):
            end = min(start + BLOCK, k)
            before = values[..., start:end].copy()
            local = gradient[..., start:end].copy()
            for j in range(start, end):
                best = values[..., j] - local[..., j - start] / diagonal[:, j][:, None]
                moved = _nearest(grid, best, j) - values[..., j]
                values[..., j] += moved
                local += moved[..., None] * moments.hessian[:, None, j, start:end]
            step = values[..., start:end] - before
            if step.any():
                changed = True
                gradient += step @ moments.hessian[:, start:end, :]
        if not changed:
            break
    return values


def _nearest(grid: WeightGrid, values: Wide, j: int) -> Wide:
    """Return the values of the grid of input `j` that are nearest to real ones (groups, out / groups)."""
    scales, zeros = grid.scales[..., j], grid.zeros[..., j]
    codes = np.clip(np.rint(values / scales) + zeros, grid.smallest, grid.largest)
    return np.asarray((codes - zeros) * scales)
