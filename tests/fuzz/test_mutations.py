"""The damage itself: as much as asked for, the same from the same seed, and never the whole file."""

import json

import numpy as np
import pytest

from tests.fuzz.mutations import Attempt, attempt, damaged_bytes, damaged_documents, require_sound

DOCUMENT = {"schema": "front/1", "list": [1, 2, {"deep": 0.5}], "text": "x"}


def test_damage_is_made_again_from_its_seed() -> None:
    data = json.dumps(DOCUMENT).encode()
    first, again = (
        [
            *damaged_bytes(data, count=200, rng=np.random.default_rng(0)),
            *damaged_documents(DOCUMENT, count=200, rng=np.random.default_rng(0)),
        ]
        for _ in range(2)
    )
    assert first == again
    assert len(first) == 400
    assert sum(one.data == data for one in first) < 20  # a repeated key, say, may be no change
    assert DOCUMENT == {"schema": "front/1", "list": [1, 2, {"deep": 0.5}], "text": "x"}


def test_what_raises_and_what_says_nothing_is_found() -> None:
    require_sound([Attempt("", 0, ""), Attempt("", 2, "nas: no such file\n")])
    for unsound in (Attempt("", None, "KeyError"), Attempt("", 2, ""), Attempt("", 1, "nas: failed")):
        with pytest.raises(AssertionError, match="1 of 1"):
            require_sound([unsound])
    assert attempt("", ["report", "-o", "/nowhere"]).is_sound
