"""`nas export` replaces and removes what it wrote, and nothing else."""

from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from nas.export.written import KEPT, RECORD, left_out, replace_written, written_networks

FIRST = {"a/model.onnx": b"1", "a/manifest.json": b"{}", "a.zip": b"z", "b/model.onnx": b"2"}


def there(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_an_earlier_export_wrote_goes_and_comes(tmp_path: Path) -> None:
    assert replace_written(tmp_path, FIRST) == []
    assert there(tmp_path) == FIRST
    second = {"c/model.onnx": b"3", "b/model.onnx": b"4"}
    assert replace_written(tmp_path, second) == []
    assert there(tmp_path) == second
    assert not (tmp_path / "a").exists()


def test_what_was_left_out_is_known_until_the_next_export(tmp_path: Path) -> None:
    assert left_out(tmp_path) == {}
    replace_written(tmp_path, FIRST, {"c": "file and simulation disagree"})
    assert left_out(tmp_path) == {"c": "file and simulation disagree"}
    replace_written(tmp_path, FIRST)
    assert left_out(tmp_path) == {}


def test_a_record_of_an_earlier_version_leaves_nothing_out(tmp_path: Path) -> None:
    write_json(tmp_path / RECORD, {"schema": "written/1", "files": {}})
    assert left_out(tmp_path) == {}


def test_what_somebody_else_put_there_stays(tmp_path: Path) -> None:
    replace_written(tmp_path, FIRST)
    own = {"notes/plan.txt": b"n", "a/photo.png": b"p", "mine.txt": b"m", "theirs/manifest.json": b"{}"}
    for name, data in own.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "b" / "model.onnx").write_bytes(b"edited")
    kept = replace_written(tmp_path, {"c/model.onnx": b"3"})
    assert kept == ["a", "b", "mine.txt", "notes", "theirs"]
    assert there(tmp_path) == {**own, "b/model.onnx": b"edited", "c/model.onnx": b"3"}
    assert [path.name for path in written_networks(tmp_path, "model.onnx")] == ["c"]


def test_a_changed_file_makes_room(tmp_path: Path) -> None:
    replace_written(tmp_path, FIRST)
    for text in (b"mine", b"mine too"):
        (tmp_path / "a" / "model.onnx").write_bytes(text)
        replace_written(tmp_path, FIRST)
    kept = {f"{KEPT}/a/model.onnx": b"mine", f"{KEPT}/a/model.onnx.2": b"mine too"}
    assert there(tmp_path) == {**FIRST, **kept}
    assert replace_written(tmp_path, FIRST) == [KEPT]


def test_nothing_is_taken_for_ours_without_a_record(tmp_path: Path) -> None:
    replace_written(tmp_path, FIRST)
    (tmp_path / RECORD).unlink()
    kept = replace_written(tmp_path, {"a/model.onnx": b"other"})
    assert kept == ["a.zip", "a/manifest.json", "b", KEPT]
    assert there(tmp_path)[f"{KEPT}/a/model.onnx"] == b"1"


def test_a_power_cut_between_two_files_loses_no_ownership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_written(tmp_path, FIRST)
    second = {"a/model.onnx": b"new", "d/model.onnx": b"5"}
    with monkeypatch.context() as patch:
        patch.setattr(import_module("nas.export.written"), "write_atomic", None)
        with pytest.raises(TypeError):
            replace_written(tmp_path, second)
    assert replace_written(tmp_path, second) == []
    assert there(tmp_path) == second


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b"])
def test_a_record_does_not_lead_out(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "x"
    outside.write_bytes(b"1")
    write_json(tmp_path / "export" / RECORD, {"schema": "written/1", "files": {name: []}})
    with pytest.raises(TrilobitError, match="is not a path in the folder"):
        replace_written(tmp_path / "export", {})
    assert outside.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    export, outside = tmp_path / "export", tmp_path / "outside"
    replace_written(export, FIRST)
    outside.mkdir()
    for path in (export / "b").iterdir():
        path.rename(outside / path.name)
    (export / "b").rmdir()
    (export / "b").symlink_to(outside)
    assert replace_written(export, {}) == ["b"]
    assert (outside / "model.onnx").exists()


NAMES = st.sampled_from(["a/1", "a/2", "b/1", "c"])
FOLDERS = st.dictionaries(NAMES, st.binary(max_size=2), max_size=4)


@given(exports=st.lists(FOLDERS, min_size=1, max_size=4), edits=st.lists(FOLDERS, min_size=4, max_size=4))
def test_no_byte_of_others_is_ever_lost(
    exports: list[dict[str, bytes]],
    edits: list[dict[str, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("export")
    for files, edit in zip(exports, edits, strict=False):
        replace_written(folder, files)
        assert there(folder).items() >= files.items()
        own = {name: b"own" + data for name, data in edit.items()}
        for name, data in own.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        before = [data for data in there(folder).values() if data.startswith(b"own")]
        replace_written(folder, files)
        after = [data for data in there(folder).values() if data.startswith(b"own")]
        assert sorted(before) == sorted(after)
