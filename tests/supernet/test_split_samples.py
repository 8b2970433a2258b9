"""Samples are divided into disjoint parts, alike for every seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from supernet.data.samples import SampleParts, Samples
from supernet.data.split_samples import split_samples


def samples(count: int, names: tuple[str, ...] = (), labels: bool = False) -> Samples:
    rows = np.arange(count)
    return Samples({"x": rows[:, None]}, rows % 3 if labels else None, names)


def rows(parts: SampleParts) -> list[set[int]]:
    each = (parts.calibration, parts.choosing, parts.judging)
    return [set(part.inputs["x"][:, 0].tolist()) for part in each]


def split(made: Samples, seed: int = 0, **sizes: int) -> SampleParts:
    return split_samples(made, rng=np.random.default_rng(seed), **sizes)


@given(st.integers(8, 2_000), st.integers(0, 99), st.booleans())
def test_parts_are_disjoint_and_none_is_empty(count: int, seed: int, labels: bool) -> None:
    parts = split(samples(count, labels=labels), seed)
    calibration, choosing, judging = rows(parts)
    assert not calibration & choosing
    assert not (calibration | choosing) & judging
    assert calibration | choosing | judging == set(range(count))
    assert min(len(calibration), len(choosing), len(judging)) >= 2
    assert len(calibration) <= 32
    assert len(choosing) <= 256
    assert len(judging) >= len(choosing)
    again = split(samples(count, labels=labels), seed)
    assert np.array_equal(again.choosing.inputs["x"], parts.choosing.inputs["x"])


def test_what_is_said_of_the_sizes() -> None:
    said = str(split(samples(100)))
    assert (
        said == "25 to calibrate on, 37 to choose by, 38 to judge the front by; no sample is in two of them"
    )
    with pytest.raises(TrilobitError, match="7 samples: at least 8"):
        split(samples(7))


def test_a_part_to_judge_by_is_taken_as_it_is() -> None:
    names = tuple(f"it/{'test' if i % 3 == 0 else 'train'}/cat/{i}.png" for i in range(90))
    calibration, choosing, judging = rows(split(samples(90, names, labels=True)))
    assert judging == {i for i in range(90) if i % 3 == 0}
    assert len(calibration | choosing) == 24 + 36


def test_crops_of_one_photograph_stay_together() -> None:
    names = tuple(f"{photo}-{i:02d}.png" for photo in ("china", "flower", "face", "park") for i in range(20))
    for seed in range(10):
        calibration, choosing, judging = rows(split(samples(80, names), seed))
        photos = [{names[i].split("-")[0] for i in part} for part in (calibration | choosing, judging)]
        assert not photos[0] & photos[1]
        assert len(judging) in (20, 40)
    single = tuple(f"img{i:02d}.png" for i in range(80))
    assert len(rows(split(samples(80, single)))[2]) == 30
