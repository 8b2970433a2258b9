"""Contracts for plug-ins: `check_searcher(make)` and its like raise where one breaks what its kind promises.

They need no test runner. With pytest, one test for each promise reads better:

    @pytest.mark.parametrize("promise", nas.testing.check_searcher.promises)
    def test_searcher(promise): promise(MySearcher)
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.testing.contract import BrokenContractError as BrokenContractError
    from nas.testing.contract import Contract as Contract
    from nas.testing.device import check_device as check_device
    from nas.testing.family import check_family as check_family
    from nas.testing.number_format import check_format as check_format
    from nas.testing.predictor import check_predictor as check_predictor
    from nas.testing.runtime import check_runtime as check_runtime
    from nas.testing.searcher import check_searcher as check_searcher

_PUBLIC = {
    "BrokenContractError": "nas.testing.contract",
    "Contract": "nas.testing.contract",
    "check_device": "nas.testing.device",
    "check_family": "nas.testing.family",
    "check_format": "nas.testing.number_format",
    "check_predictor": "nas.testing.predictor",
    "check_runtime": "nas.testing.runtime",
    "check_searcher": "nas.testing.searcher",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas.testing' has no attribute {name!r}")
    return resolve_name(f"{_PUBLIC[name]}:{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
