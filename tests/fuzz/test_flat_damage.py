"""`.tflite` files with damage of any kind: timed, or refused in one line, in a process of their own."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from nas.emit.to_onnx import emit, random_network
from tests.fuzz.mutations import attempt, damaged_bytes, require_sound, try_out

pytest.importorskip("ai_edge_litert")

from hw_profiles.runtimes.litert.flat_file import channels_first
from hw_profiles.runtimes.litert.to_tflite import to_tflite
from tests.hw_profiles.test_litert import REALS

COUNT, CONVERTED, OPENED = 400, 100, 6


@pytest.fixture(scope="module")
def content() -> bytes:
    work = single(map_layer("conv", (3, 6, 6), 4))
    return to_tflite(emit(random_network(work, rng=np.random.default_rng(0))))


def test_what_a_file_notes_is_read_or_refused(content: bytes) -> None:
    assert channels_first(content) == {"image", "conv"}
    for damage in damaged_bytes(content, count=COUNT, rng=np.random.default_rng(1)):
        try:
            names = channels_first(damage.data)
        except TrilobitError as error:
            assert "\n" not in str(error)  # noqa: PT017  # either is right
        else:
            assert all(isinstance(name, str) for name in names)


@pytest.mark.parametrize("name", ["slice", "linear", "pad", "transposed"])
def test_a_damaged_model_becomes_a_file_or_is_refused(name: str) -> None:
    attempts = [
        try_out(damage.how, partial(to_tflite, damage.data))
        for damage in damaged_bytes(REALS[name], count=CONVERTED, rng=np.random.default_rng(1))
    ]
    assert require_sound(attempts)["refused"]


@pytest.mark.slow
def test_a_damaged_file_is_timed_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    found = []
    for damage in damaged_bytes(content, count=OPENED, rng=np.random.default_rng(2)):
        path.write_bytes(damage.data)
        found.append(attempt(damage.how, ["bench", str(path), "--seconds", "0.05"]))
    require_sound(found)
