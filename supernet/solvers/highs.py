"""Linear conditions as HiGHS takes them, and quiet while it works."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint
from scipy.sparse import csr_array

Floats = NDArray[np.float64]


@contextmanager
def silent() -> Iterator[None]:
    """Keep everything from standard output: HiGHS now and then says there that it repaired a solution,
    whatever it is told to display, and what a command prints may be JSON.
    """
    if sys.platform == "win32":
        yield
        return
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class Rows:
    """Linear conditions, collected one after the other."""

    def __init__(self) -> None:
        self._columns: list[NDArray[np.int64]] = []
        self._values: list[Floats] = []
        self._lower: list[float] = []
        self._upper: list[float] = []

    def add(
        self, columns: NDArray[np.int64], values: Floats, *, lower: float = -math.inf, upper: float = math.inf
    ) -> None:
        """Add that the sum of `values` times the variables in `columns` lies between the bounds."""
        self._columns.append(columns)
        self._values.append(values)
        self._lower.append(lower)
        self._upper.append(upper)

    def constraint(self, variables: int) -> LinearConstraint:
        """Return all of them, sparse."""
        ends = np.cumsum([0, *(len(columns) for columns in self._columns)])
        content = (np.concatenate(self._values), np.concatenate(self._columns), ends)
        matrix = csr_array(content, shape=(len(self._columns), variables))
        matrix.sum_duplicates()
        return LinearConstraint(matrix, np.array(self._lower), np.array(self._upper))
