"""Every registered predictor keeps the promises of `nas.testing.check_predictor`."""

from collections.abc import Callable, Iterator

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import names
from nas.testing import check_predictor
from predictors.accuracy import mlp
from predictors.predictor import PREDICTORS, MakePredictor, load_predictor


@pytest.fixture(scope="module", autouse=True)
def _hasty() -> Iterator[None]:
    """Networks learn in fewer steps: no promise here is of how much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "STEPS", 100)
        yield


@pytest.mark.parametrize("promise", check_predictor.promises)
@pytest.mark.parametrize("name", sorted(names("trilobit.predictors", PREDICTORS)))
def test_keeps_its_promises(name: str, promise: Callable[[MakePredictor], None]) -> None:
    promise(load_predictor(name))


def test_an_unknown_predictor_names_the_known_ones() -> None:
    with pytest.raises(TrilobitError, match="unknown predictor 'luck'; known: auto, boosting, "):
        load_predictor("luck")
