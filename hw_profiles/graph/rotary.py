"""Rotary positions: by which angles pairs of numbers are turned (Su et al. 2021, arXiv:2104.09864)."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.shape_rules import heads_of


class Rotation(NamedTuple):
    """The angles of a layer.

    Attributes:
        theta: base of the frequencies.
        turned: how many numbers at the beginning of each head are turned.
        length: positions that can be told apart.
    """

    theta: float
    turned: int
    length: int


def rotation_of(layer: Layer) -> Rotation:
    """Return the angles of a `RotaryEmbedding`."""
    a = layer.values
    depth = heads_of(layer.inputs[0], a.integer("num_heads")).depth
    return Rotation(a.number("theta"), a.integer("rotary_embedding_dim") or int(depth), a.integer("length"))


@lru_cache(64)
def tables(rotation: Rotation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cosines and sines (length, turned / 2): pair i at position p has p * theta^(-2 i / turned)."""
    theta, turned, length = rotation
    angles = np.outer(np.arange(length), theta ** (-np.arange(0, turned, 2) / turned))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
