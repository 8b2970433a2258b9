"""What a tune is to do: options over a file over what its folder says; what was decided before stays."""

from pathlib import Path

import pytest

from hw_profiles.errors import TrilobitError
from nas.run.config_file import render_config
from nas.run.tune_config import TuneConfig, parse_shape, parse_tune_limit
from nas.tune.session import resolve

OPTIONS = {"model.source": "net.onnx", "samples.source": "photos"}


def recorded(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "run.toml").write_text(text)


def test_what_was_decided_stays_until_something_changes_that_it_depends_on(tmp_path: Path) -> None:
    from dataclasses import replace

    first = resolve({**OPTIONS, "constraints.latency": "60%"}, tmp_path)
    assert first.tune.choosing is None
    sized = replace(first, tune=replace(first.tune, choosing=50, evaluations=30))
    recorded(tmp_path, render_config(sized))
    for reset in (False, True):
        again = resolve(OPTIONS, tmp_path, reset=reset)
        assert (again.tune.choosing, again.tune.evaluations) == (50, 30)
        assert ("latency" in again.constraints) == (not reset)
    assert resolve({}, tmp_path).tune.choosing == 50  # the folder alone says all
    assert resolve({**OPTIONS, "samples.source": "others"}, tmp_path).tune.choosing is None
    assert resolve({**OPTIONS, "tune.evaluations": 40}, tmp_path).tune.evaluations == 40
    assert resolve({"constraints.latency": "none"}, tmp_path).constraints == {}


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path, "[data]\nsource = 'digits'\n")
    with pytest.raises(TrilobitError, match="holds a run of `nas run`"):
        resolve(OPTIONS, tmp_path)


def test_a_configuration_is_written_and_read(tmp_path: Path) -> None:
    config = resolve({**OPTIONS, "model.shape": ("x=1x3x8x8",), "tune.formats": ("int8",)}, tmp_path)
    recorded(tmp_path, render_config(config))
    assert resolve({}, tmp_path) == config
    assert config.model.shapes == {"x": (1, 3, 8, 8)}
    assert TuneConfig().tune.formats == ()


@pytest.mark.parametrize("text", ["x", "x=", "x=1x0", "x=-1x3", "=1x3", "x=1xa"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(TrilobitError, match="is no shape"):
        parse_shape(text)


def test_limits_are_read_as_people_write_them() -> None:
    assert parse_tune_limit("kl = 0.01") == ("kl", "0.01")
    assert parse_tune_limit("flips<=0.5%") == ("flips", "0.5%")
    for text in ("agreement<=99%", "kl", "agreement=120%"):
        with pytest.raises(TrilobitError):
            parse_tune_limit(text)
