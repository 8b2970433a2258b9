"""`nas spaces design --table`: SpaceEvo's block tables, made-up ones and the released ones."""

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.block_samples import read_block_samples
from nas.cli.main import main
from nas.search.space_design import (
    DrawnNetworks,
    block_table,
    qt_score,
    random_spaces,
)
from tests.published_data import DataFile

# the spaces whose supernets were released, and a limit that each is for
RELEASED = {
    ("mobilew", "332160-134200"): 10e-3,
    ("mobilew", "112220-154410"): 15e-3,
    ("mobilew", "122222-155400"): 20e-3,
    ("onnxw", "151122-023231"): 10e-3,
    ("onnxw", "121122-133333"): 15e-3,
}


def row(pixels: int, loss: float, latency_ms: float) -> str:
    return f"3#16#1_3#16#1,1x8x{pixels}x{pixels},{loss},12.5,0.01,{latency_ms}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stages, two types, two windows, two resolutions; type 1 of both is better, and window 0 quicker."""
    for stage, block, window in np.ndindex(2, 2, 2):
        lines = [
            row(pixels >> stage, 0.5 - 0.2 * block + 0.01 * i, (1 + window) * pixels / 100 + 0.01 * i)
            for pixels in (16, 24)
            for i in range(4)
        ]
        path = tmp_path / "lut" / "phone" / f"stage{stage + 1}_{block}_{window}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))
    return tmp_path / "lut"


def as_arrays(folder: Path) -> Path:
    """The same table in the other form."""
    names, offsets, values = [], [0], []
    for path in sorted(folder.glob("*/*.csv")):
        names.append(f"{path.parent.name}/{path.stem.removeprefix('stage')}")
        for line in path.read_text().splitlines():
            _, shape, *figures = line.split(",")
            values.append([8, int(shape.split("x")[-1]), *map(float, figures)])
        offsets.append(len(values))
    np.savez(folder.parent / "lut.npz", names=names, offsets=offsets, vals=np.array(values))
    return folder.parent / "lut.npz"


def test_both_forms_say_the_same_and_keep_the_resolution(folder: Path) -> None:
    files, arrays = read_block_samples(folder), read_block_samples(as_arrays(folder))
    assert files.device == arrays.device == "phone"
    assert files.sizes == arrays.sizes == (16, 24)
    assert set(files.groups) == set(arrays.groups) == set(np.ndindex(2, 2, 2, 2))
    for at, rows in files.groups.items():
        np.testing.assert_array_equal(rows, arrays.groups[at])
    np.testing.assert_allclose(files.groups[1, 1, 0, 1][0], [0.3, 0.24e-3])


def design(*words: str) -> tuple[dict[str, Any], str]:
    out, said = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        status = main(["spaces", "design", *words, "--json"])
    return json.loads(out.getvalue()) if status == 0 else {"status": status}, said.getvalue()


def test_a_space_is_designed_on_a_table_and_others_are_scored_beside_it(folder: Path, tmp_path: Path) -> None:
    given = (
        "--table",
        str(folder),
        "--max-latency",
        "0.5ms",
        "--evaluations",
        "20",
        "-o",
        str(tmp_path / "out"),
    )
    found, said = design(*given, "--spaces", "00-11")
    assert found["best"].startswith("11-")
    assert found["beats_random"][found["best"]] > found["beats_random"]["00-11"]
    assert f"{found['best']}: beats" in said
    assert json.loads((tmp_path / "out" / "design.json").read_text())["best"] == found["best"]


@pytest.mark.parametrize("spaces", ["00-1", "0011", "00-12", "a0-11", "00-1٣"])
def test_spaces_that_are_none_of_the_table_are_refused(folder: Path, tmp_path: Path, spaces: str) -> None:
    found, said = design("--table", str(folder), "--spaces", spaces, "-o", str(tmp_path / "out"))
    assert found["status"] == 2
    assert "such as 00-00" in said
    assert not (tmp_path / "out").exists()


def broken(folder: Path, how: str) -> Path:
    path = folder / "phone" / "stage1_0_0.csv"
    if how == "no such file":
        return folder / "nowhere"
    if how == "not arrays":
        (folder / "text.npz").write_text("no arrays")
        return folder / "text.npz"
    if how == "other columns":
        np.savez(folder / "few.npz", names=["phone/1_0_0"], offsets=[0, 1], vals=np.ones((1, 4)))
        return folder / "few.npz"
    if how == "other name":
        path.rename(path.with_name("first.csv"))
    elif how == "other sizes":
        path.write_text(row(20, 0.1, 0.1))
    else:
        path.write_text({"not a row": "a,b\n", "no number": row(16, 0.1, 0.1).replace("0.1", "x"),
                         "nan": row(16, float("nan"), 0.1), "empty": ""}[how])  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no such file", "no table of blocks"),
        ("not arrays", "no table of blocks"),
        ("other columns", "it takes 6 columns"),
        ("other name", "is no group"),
        ("other sizes", "the same resolutions"),
        ("not a row", "it takes 6 fields"),
        ("no number", "it takes 6 fields"),
        ("nan", "without positive"),
        ("empty", "without positive"),
    ],
)
def test_what_is_no_such_table_is_one_line(folder: Path, how: str, words: str) -> None:
    with pytest.raises(TrilobitError, match=words):
        read_block_samples(broken(folder, how))


def test_several_devices_need_a_name(folder: Path) -> None:
    (folder / "phone").rename(folder / "a")
    (folder / "b").mkdir()
    (folder / "b" / "stage1_0_0.csv").write_text(row(16, 0.1, 0.1))
    assert read_block_samples(folder, "a").device == "a"
    for device in (None, "c"):
        with pytest.raises(TrilobitError, match="a, b"):
            read_block_samples(folder, device)


@pytest.mark.parametrize(("named", "limit_s"), RELEASED.items())
def test_released_spaces_beat_99_of_100_random_ones(
    named: tuple[str, str], limit_s: float, data_file: DataFile
) -> None:
    device, code = named
    samples = read_block_samples(data_file("latency/spaceevo_block_lut_sized.npz"), device)
    table = block_table(samples.groups, constant_s=[0.0] * len(samples.sizes))
    drawn = DrawnNetworks(table, networks=20_000, rng=np.random.default_rng(0))

    def score(space: np.ndarray) -> float:
        return qt_score(*drawn(space), limit_s)

    others = random_spaces(table, 200, rng=np.random.default_rng(1))
    released = np.array([int(digit) for digit in code.replace("-", "")], np.int16)
    assert np.mean([score(space) < score(released) for space in others]) >= 0.99
