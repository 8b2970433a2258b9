"""Rounding with feedback of errors against rounding to nearest."""

import itertools

import numpy as np

from hw_profiles.graph.formats import Int
from supernet.formats.loading import load_weight_format
from supernet.formats.quantized_tensor import Granularity
from supernet.formats.weight_format import WeightFormat
from supernet.ptq.error_feedback import by_group, round_with_feedback
from supernet.ptq.moments import Moments, moments_by_output, moments_of
from supernet.ptq.product import Product
from supernet.ptq.ranges import fake_quantize, params_within
from supernet.ptq.unit_rounding import round_unit, unit_inputs
from supernet.ptq.weight_grid import weight_grid

LAYERS = 100


def correlated(rng: np.random.Generator, groups: int, n: int, k: int) -> np.ndarray:
    """Inputs that are mostly one another's, as neighbouring pixels are."""
    mixing = rng.normal(size=(groups, k, k)) * 0.3 + 1
    return (rng.normal(size=(groups, n, k)) @ mixing).astype(np.float32)


def product(rng: np.random.Generator, groups: int, outputs: int, k: int, **more: object) -> Product:
    weight = rng.normal(size=(groups, outputs, k)).astype(np.float32)
    bias = rng.normal(size=groups * outputs).astype(np.float32)
    return Product("unit", "x", weight, bias, (groups * outputs, k), **more)


def rounded(moments: Moments, weight: np.ndarray, weight_format: WeightFormat) -> tuple[float, float]:
    """Errors of nearest weights and of those with feedback."""
    grid = by_group(weight_grid(weight_format, weight.reshape(-1, weight.shape[2])), moments.target.shape)
    values = round_with_feedback(moments, grid)
    np.testing.assert_allclose(grid.values(grid.codes(values)), values, atol=1e-12)  # on the grid
    nearest = grid.values(grid.codes(weight.reshape(moments.target.shape).astype(np.float64)))
    return float(moments.errors(nearest).sum()), float(moments.errors(values).sum())


def test_feedback_is_never_worse_than_nearest_on_correlated_inputs() -> None:
    rng, ratios = np.random.default_rng(0), []
    for layer in range(LAYERS):
        groups, outputs, k = int(rng.integers(1, 4)), int(rng.integers(1, 9)), int(rng.integers(2, 80))
        unit = product(rng, groups, outputs, k)
        rows = correlated(rng, groups, 200, k)
        moments = moments_of(unit.weight, rows, rows, centred=bool(layer % 2))
        fmt = load_weight_format(("int8", "int4", "int2")[layer % 3])
        nearest, learned = rounded(moments, unit.weight, fmt)
        assert learned <= nearest * (1 + 1e-9), (layer, nearest, learned)
        ratios.append(learned / nearest)
    assert np.median(ratios) < 0.3


def test_every_grid_of_integers_is_learned() -> None:
    """Groups, zero points, codes without symmetry, outputs with moments of their own."""
    rng = np.random.default_rng(1)
    unit = product(rng, 1, 6, 40)
    rows = correlated(rng, 1, 300, 40)
    activity = (rng.random((300, 6)) > 0.5).astype(np.float32)
    for moments in (
        moments_of(unit.weight, rows, rows, centred=False),
        moments_by_output(unit.weight, rows, rows, activity, centred=True),
    ):
        for weight_format in (
            WeightFormat(Int(4, "unsigned"), Granularity(16)),
            WeightFormat(Int(4, "full"), Granularity(32)),
            WeightFormat(Int(3), Granularity(channels=False)),
        ):
            nearest, learned = rounded(moments, unit.weight, weight_format)
            assert learned < 0.5 * nearest, weight_format


def test_the_target_makes_up_for_rounded_inputs() -> None:
    rng = np.random.default_rng(2)
    unit, rows = product(rng, 1, 5, 12), correlated(rng, 1, 500, 12)
    given = fake_quantize(rows, params_within(-2.0, 2.0, (-np.inf, np.inf)))  # most of them clipped
    moments = moments_of(unit.weight, rows, given, centred=False)
    exact = unit.sums(rows)
    errors = [
        np.square(unit.sums(given, weight) - exact).sum()
        for weight in (unit.weight, moments.target.astype(np.float32))
    ]
    assert errors[1] < 0.9 * errors[0]


def test_what_lowers_the_error_on_other_samples_is_kept_and_recorded() -> None:
    rng = np.random.default_rng(3)
    unit = product(rng, 1, 16, 64, bounds=(0.0, np.inf))
    inputs = unit_inputs(unit, correlated(rng, 1, 1_000, 64), None)
    for fmt in ("int4", "int2"):
        parameters, bought = round_unit(inputs, fmt, load_weight_format(fmt))
        assert {each.format for each in bought} == {fmt}
        assert bought[-1].technique == "learned rounding"
        assert bought[-1].after < 0.7 * bought[0].before
        assert all(a.after == b.before for a, b in itertools.pairwise(bought))
        assert np.abs(parameters.weight.codes).max() <= load_weight_format(fmt).element.largest
    _, unlearned = round_unit(inputs, "int4", load_weight_format("int4"), learned=False)
    assert [each.technique for each in unlearned] in ([], ["bias correction"])
