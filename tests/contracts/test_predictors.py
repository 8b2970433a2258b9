"""Every registered predictor keeps the promises of `nas.testing.check_predictor`."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import names
from nas.testing import check_predictor
from predictors.accuracy import mlp
from predictors.accuracy.stacked import StackedPredictor
from predictors.predictor import PREDICTORS, MakePredictor, load_predictor


@pytest.fixture(scope="module", autouse=True)
def _hasty() -> Iterator[None]:
    """Networks learn in fewer steps: no promise here is of how much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "STEPS", 100)
        yield


# the mean of all others takes as long as they together: here of two, in the slow tests as it is registered
FEW = partial(StackedPredictor, members=("ridge", "boosting"))
REGISTERED = sorted(names("trilobit.predictors", PREDICTORS))


@pytest.mark.parametrize("promise", check_predictor.promises)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "auto")) for name in REGISTERED],
)
def test_keeps_its_promises(name: str, promise: Callable[[MakePredictor], None]) -> None:
    promise(load_predictor(name))


@pytest.mark.parametrize("promise", check_predictor.promises)
def test_a_mean_of_few_keeps_its_promises(promise: Callable[[MakePredictor], None]) -> None:
    promise(FEW)


def test_an_unknown_predictor_names_the_known_ones() -> None:
    with pytest.raises(TrilobitError, match="unknown predictor 'luck'; known: auto, boosting, "):
        load_predictor("luck")
