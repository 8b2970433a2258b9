"""What a board's owner reports of it becomes a profile whose figures say so; a form lists what to time."""

from pathlib import Path

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.profiles.reported_times import read_report, report_form

LAYERS = (map_layer("conv", (8, 4, 4), 8), map_layer("linear", (8, 1, 1), 10, weight_format="int8"))


def test_a_form_that_was_filled_in_is_a_profile(tmp_path: Path) -> None:
    first, *lines = report_form(LAYERS).splitlines()
    path = tmp_path / "my board.csv"
    path.write_text("\n".join((first, f"{lines[0]}1.5", lines[1])))  # the second one is left open
    profile = read_report(path)
    assert (profile.device.figures, profile.device.name) == ("reported", "my-board")
    assert {layer: row.median_s for layer, row in profile.table.items()} == {LAYERS[0]: 1.5e-3}
    save_profile(profile, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == profile


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must be 'layer,ms'"),
        ("layer,ms\n", "no time of any layer"),
        (f'layer,ms\n"{LAYERS[0].key()}",fast\n', "line 2: 'fast' is no time"),
        (f'layer,ms\n"{LAYERS[0].key()}",-1\n', "line 2: '-1' is no time"),
        ("layer,ms\nsomething,1\n", "line 2: 'something' is no layer"),
        ("layer,ms\na,b,c\n", "line 2: 3 columns"),
    ],
)
def test_what_is_no_report_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text(text)
    with pytest.raises(TrilobitError, match=said):
        read_report(path)


def test_a_report_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"cannot be read .*layer,ms"):
        read_report(tmp_path / "none.csv")
