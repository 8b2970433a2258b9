"""Configurations: written and read back, and refused where they make no sense."""

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.plugin import choose
from nas.run.config import RunConfig, SearchSection
from nas.run.config_file import parse_config, read_config, render_config
from nas.search.objectives import OBJECTIVES
from nas.search.searcher import SEARCHERS
from supernet.train.loop import TrainConfig

counts = st.integers(1, 10**6)
names = st.sampled_from(sorted(SEARCHERS))
objectives = st.lists(st.sampled_from(sorted(OBJECTIVES)), min_size=1, unique=True).map(tuple)
configs = st.builds(
    RunConfig,
    seed=st.integers(0, 2**31),
    measure=st.builds(
        MeasurePlan,
        rounds=st.integers(1, 10_000),
        window_s=st.floats(1e-6, 1),
        core=st.none() | st.integers(0, 9),
    ),
    train=st.builds(
        TrainConfig, epochs=st.integers(1, 1_000), learning_rate=st.floats(1e-9, 1), flip=st.booleans()
    ),
    search=st.builds(SearchSection, searcher=names, objectives=objectives, budget=counts),
    constraints=st.dictionaries(st.sampled_from(("latency", "size", "macs")), st.just("60%")),
)


@given(configs)
def test_what_is_rendered_is_read_back(config: RunConfig) -> None:
    assert parse_config(tomllib.loads(render_config(config)), origin="test") == config


def test_the_defaults_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(render_config(RunConfig()))
    assert read_config(path) == RunConfig()


def test_what_is_not_named_takes_its_default() -> None:
    config = parse_config({"train": {"epochs": 3}}, origin="test")
    assert config == replace(RunConfig(), train=TrainConfig(epochs=3))


def test_whole_numbers_serve_as_fractions() -> None:
    assert parse_config({"train": {"learning_rate": 1}}, origin="test").train.learning_rate == 1


def test_limits_are_kept_by_their_own_names() -> None:
    config = parse_config({"constraints": {"negative-flips": "0.5%", "worst-class": "80%"}}, origin="mine")
    assert config.constraints == {"flips": "0.5%", "worst_class": "80%"}
    assert set(config.limits()) == {"flips", "worst_class"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"trian": {}}, "mine: unknown section 'trian'; did you mean 'train'\\?; known: seed, data, device"),
        (
            {"train": {"epoch": 1}},
            "mine: unknown key train.epoch; did you mean 'epochs'\\?; known: accumulate",
        ),
        ({"train": []}, r"mine: \[train\] must be a table, got \[\]"),
        ({"train": {"epochs": 1.5}}, "mine: train.epochs must be a whole number from 0 to 100,000, got 1.5"),
        (
            {"train": {"epochs": True}},
            "mine: train.epochs must be a whole number from 0 to 100,000, got True",
        ),
        ({"train": {"flip": 1}}, "mine: train.flip must be true or false, got 1"),
        (
            {"search": {"objectives": "accuracy"}},
            "search.objectives must be a list, each item one of accuracy",
        ),
        ({"measure": {"core": "first"}}, "measure.core must be a whole number from 0 to 65,535, got 'first'"),
        ({"seed": "7"}, "mine: seed must be a whole number from 0 to 4,294,967,295, got '7'"),
        ({"constraints": ["size"]}, r"mine: \[constraints\] must be a table"),
        ({"constraints": {"speed": "3"}}, "unknown objective 'speed'; known: accuracy"),
        ({"constraints": {"latency": "soon"}}, "write a number and one of: s, ms, us"),
        ({"constraints": {"size": "-3KB"}}, "positive and finite"),
        ({"train": {"epochs": 0}}, "train.epochs must be above 0, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        parse_config(document, origin="mine")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("search", "rounds"),
        ("search", "batch"),
        ("search", "finalists"),
        ("export", "count"),
        ("sample", "fp32"),
    ],
)
def test_counts_start_at_one(section: str, key: str) -> None:
    with pytest.raises(
        TrilobitError, match=rf"{section}\.{key} must be a whole number from 1 to [0-9,]+, got 0"
    ):
        parse_config({section: {key: 0}}, origin="test")


@pytest.mark.parametrize("name", [f.name for f in fields(RunConfig)])
def test_every_section_is_plain_data(name: str) -> None:
    assert isinstance(RunConfig().section(name), dict | int)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TrilobitError, match=r"broken\.toml: not valid TOML"):
        read_config(path)


def test_slow_engines_are_given_fewer_candidates_unless_it_is_said() -> None:
    assert SearchSection().candidates == 40_000
    assert SearchSection(searcher="tpe").candidates == 1_000
    assert SearchSection(searcher="tpe", budget=7).candidates == 7


# run.toml of every device listed the options of all
LISTED = {
    **{"provider": "CPU", "threads": 1, "batch": 1},
    **{"target": "host", "tracker": "", "key": "", "database": ""},
}


def test_devices_of_earlier_files_are_read() -> None:
    for name in ("ort", "tvm", "systolic:bitfusion"):
        section = parse_config({"device": {"name": name, **LISTED}}, origin="").device
        assert section.choice == choose(name)
    four = parse_config({"device": {"name": "ort", **LISTED, "threads": 4}}, origin="")
    assert four.device.settings["threads"] == 4
    assert parse_config({"device": {"name": "ort:threads=4"}}, origin="").device.settings["threads"] == 4
    table = parse_config({"device": {"options": {"batch": 2}}}, origin="")
    assert (table.device.batch, table.device.name) == (2, "ort")


def test_an_option_of_another_device_is_refused_where_it_says_something() -> None:
    with pytest.raises(
        TrilobitError,
        match=r"device 'tvm' has no option threads \(= 4\); ort, litert, openvino and ncnn have it",
    ):
        parse_config({"device": {"name": "tvm", **LISTED, "threads": 4}}, origin="")
    with pytest.raises(TrilobitError, match=r"no option thread .*did you mean 'threads'"):
        parse_config({"device": {"thread": 4}}, origin="")
