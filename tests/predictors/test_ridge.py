"""The line that `ridge` fits."""

import numpy as np
import pytest

from predictors.accuracy.ridge import fit_line


def test_numpys_singular_values_are_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy asks LAPACK for divide and conquer, which gave up on 265 ordinary networks once."""

    def give_up(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", give_up)
    x = np.random.default_rng(0).standard_normal((50, 4))
    slope = np.array([1.0, -2.0, 0.0, 3.0])
    line = fit_line(x, x @ slope - (x @ slope).mean())
    np.testing.assert_allclose(line.slope, slope, atol=1e-2)
