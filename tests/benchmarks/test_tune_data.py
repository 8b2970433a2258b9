"""Data sets to tune models on: what is judged by is of other photographs and other words."""

from pathlib import Path

import numpy as np

from benchmarks import tune_data
from supernet.data.image_samples import is_judged
from supernet.data.input_spec import InputSpec
from supernet.data.preprocessing import Preprocessing, parse_preprocessing
from supernet.data.read_samples import read_samples
from supernet.data.samples import SampleParts
from supernet.data.split_samples import split_samples


def options(data: tune_data.TuneData) -> Preprocessing:
    return parse_preprocessing(
        {
            flag.removeprefix("--"): text
            for flag, text in zip(data.options[::2], data.options[1::2], strict=True)
        }
    )


def divided(data: tune_data.TuneData, *shape: int | str) -> SampleParts:
    samples = read_samples(data.source, [InputSpec("x", shape, "float32")], options(data))
    assert samples.labels is None
    return split_samples(samples, rng=np.random.default_rng(0))


def photos(names: tuple[str, ...]) -> set[str]:
    return {Path(name).name.rsplit("-", 1)[0] for name in names}


def test_photographs_to_judge_by_are_others(tmp_path: Path) -> None:
    parts = divided(tune_data.imagenet(tmp_path, train=12, test=9), 1, 3, 224, 224)
    assert all(map(is_judged, parts.judging.names))
    assert len(parts.judging) == 9
    assert not photos(parts.judging.names) & photos((*parts.calibration.names, *parts.choosing.names))
    assert abs(parts.judging.inputs["x"].mean()) < 1.5  # normalised


def test_lines_are_drawn_alike_for_a_seed(tmp_path: Path) -> None:
    made = [tune_data.text_lines(tmp_path / name, train=6, test=6, seed=3) for name in "ab"]
    first, second = (divided(data, "n", 3, 48, "w") for data in made)
    assert np.array_equal(first.judging.inputs["x"], second.judging.inputs["x"])
    assert first.judging.inputs["x"].shape == (6, 1, 3, 48, 320)
    turned = divided(tune_data.text_directions(tmp_path / "c", train=6, test=6), "n", 3, "h", "w")
    assert turned.judging.inputs["x"].shape == (6, 1, 3, 48, 192)
