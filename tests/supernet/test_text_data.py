"""Text as tokens: windows, files divided into parts, classes of source, tables, and what is refused."""

import csv
import io
import keyword
import tokenize
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from supernet.data import text_files, text_table
from supernet.data.python_source import CLASSES, read_source, token_classes
from supernet.data.text_files import PARTS, by_part, different, read_text
from supernet.data.text_table import read_table
from supernet.data.tokens import PADDING, Texts, Windows, fingerprint_of, spread, windows_over
from supernet.tasks import text_sources
from supernet.tasks.loading import load_data

SOURCE = '''import os  # a comment
def f(x: int = 0x1F) -> str:
    """Größe."""
    return "é" + \\
        str(x)
'''


def as_bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


# -- windows -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(1, 9))
def test_windows_are_slices_of_the_text(text: bytes, length: int, step: int) -> None:
    windows = windows_over(as_bytes(text), length, step)
    starts = [start for start in range(0, len(text), step) if start + length < len(text)]
    assert windows.starts.tolist() == starts
    for start, ids, following in zip(starts, windows.ids, windows.next_ids, strict=True):
        assert bytes(ids.tolist()) == text[start : start + length]
        assert bytes(following.tolist()) == text[start + 1 : start + length + 1]


@given(st.binary(min_size=10, max_size=60), st.integers(0, 99))
def test_moved_windows_stay_inside(text: bytes, by: int) -> None:
    windows = windows_over(as_bytes(text), 4, 3)
    moved = windows.moved(np.full(len(windows), by))
    assert (moved.starts <= len(text) - 5).all()
    assert (moved.starts >= windows.starts).all()


def test_windows_with_labels_reach_the_end() -> None:
    text = as_bytes(b"abcdef")
    windows = windows_over(text, 3, 3, labels=text - ord("a"))
    assert windows.answers.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert windows_over(text, 3, 3).starts.tolist() == [0]  # there is no byte after the second
    with pytest.raises(ValueError, match="without labels"):
        windows_over(text, 3, 3).answers  # noqa: B018
    with pytest.raises(ValueError, match="outside a text"):
        Windows(text, np.array([4]), 3)
    with pytest.raises(ValueError, match="one label a byte"):
        Windows(text, np.array([0]), 3, text[:2])


@given(st.integers(1, 50), st.integers(1, 50))
def test_spread_windows_are_different_and_reach_both_ends(count: int, most: int) -> None:
    windows = Windows(np.zeros(99, np.uint8), np.arange(count), 4)
    some = spread(windows, most).starts.tolist()
    assert len(set(some)) == len(some) == min(count, most)
    assert some[0] == 0
    assert most == 1 or some[-1] == count - 1


def test_texts_are_padded() -> None:
    texts = Texts(as_bytes(b"helloyou"), np.array([0, 5]), np.array([5, 8]), np.array([1, 0]), 6)
    assert [bytes(row[row != PADDING].tolist()) for row in texts.ids] == [b"hello", b"you"]
    assert (texts.ids[1, 3:] == PADDING).all()
    assert texts[::-1].labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="0 to 4 bytes"):
        Texts(texts.text, texts.starts, texts.ends, texts.labels, 4)


def test_the_fingerprint_notices_every_change() -> None:
    text = as_bytes(b"some text, long enough")
    one = windows_over(text, 4, 2)
    changed = [
        windows_over(as_bytes(b"some text, long enougH"), 4, 2),
        windows_over(text, 4, 3),
        windows_over(text, 5, 2),
        windows_over(text, 4, 2, labels=text),
    ]
    hashes = [fingerprint_of(windows) for windows in (one, *changed)]
    assert len(set(hashes)) == len(hashes)
    assert fingerprint_of(windows_over(text.copy(), 4, 2)) == hashes[0]


# -- files ---------------------------------------------------------------------------------------------------


@example(3, 177)  # two of three are drawn for the test
@given(st.integers(3, 60), st.integers(0, 999))
def test_every_file_is_in_one_part(count: int, seed: int) -> None:
    names = [f"{i}.py" for i in range(count)]
    parts = by_part({name: name for name in names}, "it", seed=seed)
    assert sorted(name for part in PARTS for name in parts[part]) == sorted(names)
    assert all(parts[part] for part in PARTS)


def test_a_file_stays_in_its_part_when_others_come() -> None:
    names = {f"folder/{i}.py": i for i in range(300)}
    parts, more = (by_part(files, "it", seed=3) for files in (names, {**names, "new.py": 300}))
    for part in PARTS:
        assert set(parts[part]) <= set(more[part])
        assert {*more[part]} - {*parts[part]} <= {300}
    assert 10 < len(parts["test"]) < 60
    assert by_part(names, "it", seed=4) != parts


def test_copies_count_once() -> None:
    assert different({"b": b"x", "a": b"x", "c": b"y"}) == {"a": b"x", "c": b"y"}


def test_a_file_is_divided_by_position_and_a_folder_by_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4
    (tmp_path / "one.txt").write_bytes(content)
    parts = read_text(tmp_path / "one.txt", seed=0)
    assert b"".join(parts[part].tobytes() for part in PARTS) == content
    for i in range(6):
        (tmp_path / f"{i}.txt").write_bytes(b"file %d" % i)
    (tmp_path / ".hidden").write_text("no")
    files = {
        part: set(text.tobytes().split(b"\0")) - {b""} for part, text in read_text(tmp_path, seed=0).items()
    }
    assert sum(map(len, files.values())) >= 7
    assert not files["train"] & (files["validation"] | files["test"])
    assert b"no" not in set.union(*files.values())


def test_a_large_file_is_mapped_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"0123456789" * 400)
    small = load_data(f"text:{path}?length=8", seed=0)
    monkeypatch.setattr(text_files, "MOST_IN_MEMORY", 100)
    large = load_data(f"text:{path}?length=8", seed=0)
    assert isinstance(large.train.text, np.memmap)
    assert large.fingerprint == small.fingerprint
    monkeypatch.setattr(text_files, "MOST_OF_FOLDER", 100)
    with pytest.raises(TrilobitError, match=r"4,000 bytes in files.*into one file"):
        load_data(f"text:{tmp_path}", seed=0)


# -- source --------------------------------------------------------------------------------------------------


def test_classes_of_source() -> None:
    labels = token_classes(SOURCE.encode())
    assert labels is not None
    data = SOURCE.encode()
    for word, name in {
        "import": "keyword",
        "os": "name",
        "# a comment": "comment",
        "0x1F": "number",
        "->": "operator",
        '"""Größe."""': "string",
        '"é"': "string",
        "\\\n        ": "whitespace",
    }.items():
        start = data.index(word.encode())
        end = start + len(word.encode())
        assert {CLASSES[label] for label in labels[start:end]} == {name}, word


def test_classes_agree_with_a_slow_reading_of_this_file() -> None:
    """By characters, one token after the other."""
    text = Path(__file__).read_text()
    expected = ["whitespace"] * len(text)
    lines = np.cumsum([0, *map(len, text.splitlines(keepends=True))])
    kinds = {"NUMBER": "number", "STRING": "string", "COMMENT": "comment", "OP": "operator"}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "NAME":
            name = "keyword" if keyword.iskeyword(token.string) else "name"
        elif kind.startswith("FSTRING"):
            name = "string"
        elif kind in kinds:
            name = kinds[kind]
        else:
            continue
        start, end = (lines[row - 1] + column for row, column in (token.start, token.end))
        expected[start:end] = [name] * (end - start)
    labels = token_classes(text.encode())
    assert labels is not None
    wide = [name for name, character in zip(expected, text, strict=True) for _ in character.encode()]
    differing = [
        i for i, (label, name) in enumerate(zip(labels, wide, strict=True)) if CLASSES[label] != name
    ]
    assert all(text.encode()[i : i + 1] in b"{}" for i in differing)  # doubled braces of f-strings


@given(st.text(alphabet="ab(){}[]'\"\\ \n\t#0.é=$f:", max_size=40))
def test_any_text_has_one_class_a_byte_or_none(text: str) -> None:
    labels = token_classes(text.encode())
    assert labels is None or (len(labels) == len(text.encode()) and (labels < len(CLASSES)).all())


def test_source_in_any_encoding_and_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nx = 'é'\r\n".encode("latin-1"))
    (tmp_path / "broken.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "strange.py").write_bytes(b"# coding: no-such\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "left_out.py").write_text("x = 1\n")
    assert read_source(tmp_path) == {"latin.py": "# -*- coding: latin-1 -*-\nx = 'é'\n".encode()}
    assert token_classes(b"x = (1,\n") is None
    assert token_classes(b"if x:\n  y\n z\n") is None


@pytest.mark.parametrize("name", ["python-bytes", "python-tokens"])
def test_the_standard_library_by_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(40):
        (tmp_path / f"m{i}.py").write_text(f"def f{i}(x):\n    return x + {i}  # number {i}\n" * 4)
    monkeypatch.setattr(text_sources, "standard_library", lambda: tmp_path)
    task = load_data(f"{name}:length=16,step=5", seed=0)
    assert (task.train.length, task.channels) == (16, 256)
    texts = [
        set(part.text.tobytes().split(b"\0")) - {b""} for part in (task.train, task.validation, task.test)
    ]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 40
    assert np.diff(task.train.starts).max() == 5
    assert np.diff(task.test.starts).min() == 16
    assert task.fingerprint == load_data(f"{name}:?length=16,step=5", seed=0).fingerprint
    assert task.fingerprint != load_data(f"{name}:length=16,step=5", seed=1).fingerprint
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(text_sources, "standard_library", lambda: tmp_path / "empty")
    with pytest.raises(TrilobitError, match="no Python source"):
        load_data(name, seed=0)


# -- tables --------------------------------------------------------------------------------------------------

CELL = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), max_size=12)


@given(st.lists(st.tuples(CELL, st.sampled_from(["yes", "no", "it, too"])), min_size=1, max_size=9))
def test_a_table_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("table") / "it.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "label", "text"), *((1, label, text) for text, label in rows)])
    table = read_table(path, text="text", label="label", length=1_000)
    assert table.classes == tuple(sorted({label for _, label in rows}))
    read = [bytes(row[row != PADDING].tolist()).decode() for row in table.texts.ids]
    assert read == [text for text, _ in rows]
    assert [table.classes[i] for i in table.texts.labels] == [label for _, label in rows]
    short = read_table(path, text="text", label="label", length=3)
    assert (short.texts.ids == table.texts.ids[:, :3]).all()


def test_tables_of_other_people(tmp_path: Path) -> None:
    path = tmp_path / "it.csv"
    path.write_bytes(b"\xef\xbb\xbflabel\ttext\n1\tcaf\xe9\n\n0\t\n")  # a mark, tabs, latin-1, a blank line
    table = read_table(path, text="text", label="label", length=8)
    assert table.classes == ("0", "1")
    assert bytes(table.texts.ids[0, :4].tolist()) == b"caf\xe9"
    path.write_text("kind;words\na;so\nb;no\n")
    assert read_table(path, text="words", label="kind", length=8).classes == ("a", "b")


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


ROWS = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20))


@pytest.mark.parametrize(
    ("content", "option", "message"),
    [
        (ROWS.replace("label", "labels"), "", r"it.csv, line 1: no column 'label'.*did you mean 'labels'"),
        (ROWS, "?text=words", "no column 'words'; columns"),
        (ROWS, "?words=text", r"unknown option 'words' of csv; known: text, label, length"),
        (ROWS, "?length=none", "length=none of csv: a whole number from 2 to 16,384"),
        (ROWS, "?length=8,length=8", "each name once"),
        (ROWS + "a, b, c\n", "", r"it.csv, line 22: 3 fields where the header has 2"),
        (ROWS + "alone\n", "", r"line 22: 1 field where"),
        (ROWS + 'x,"\n', "", r"it.csv, line 2\d: unexpected end of data"),
        (ROWS + "words,\n", "", "line 22: nothing in column 'label'"),
        (ROWS + "a" * 140_000 + ",a\n", "", r"line 22: field larger than field limit"),
        ("text,label\nx,a\ny,a\n", "", "only one class, 'a'"),
        (ROWS + "rare,c\n", "", "class 'c' has 1 text, fewer than the 3 parts"),
        ("text,label\n", "", "a header and no rows"),
        ("", "", "it.csv: empty"),
        ("text,label\n" + "".join(f"t,{i}\n" for i in range(1_001)), "", "line 1002: more than 1,000 diff"),
    ],
)
def test_a_table_that_cannot_be_learned_from(tmp_path: Path, content: str, option: str, message: str) -> None:
    path = write(tmp_path / "it.csv", content)
    with pytest.raises(TrilobitError, match=message):
        load_data(f"csv:{path}{option}", seed=0)


def test_a_line_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_table, "MOST_OF_LINE", 1_000)
    path = write(tmp_path / "it.csv", ROWS + "a" * 1_100 + ",a\n")
    with pytest.raises(TrilobitError, match="line 22: more than 1,000 characters"):
        load_data(f"csv:{path}", seed=0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("text:", "text needs a path: text:PATH"),
        ("csv:", "csv needs a path: csv:PATH"),
        ("text:/nowhere", "/nowhere: no such file or folder of text"),
        ("csv:/nowhere", "/nowhere: no such CSV file"),
        ("python-bytes:/usr?length=8", "takes no path, got '/usr'"),
        ("python-tokens:size=8", "unknown option 'size' of python-tokens; known: length, step"),
        ("text:x?length=1", "length=1 of text: a whole number from 2"),
        ("text:x?step=0", "step=0 of text: a whole number from 1"),
        ("text:x?length", "'length' behind the"),
    ],
)
def test_sources_that_are_none(source: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        load_data(source, seed=0)


def test_text_that_is_too_little_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrilobitError, match="no files in it"):
        load_data(f"text:{tmp_path}", seed=0)
    path = tmp_path / "it.txt"
    for content, message in {
        b"short": "4 bytes of text for train, and a window of length=256 needs 257",
        b"PK\x03\x04rest": "zip data, whose bytes are no text; unpack it",
        b"\x1f\x8brest": "gzip data",
    }.items():
        path.write_bytes(content)
        with pytest.raises(TrilobitError, match=message):
            load_data(f"text:{path}", seed=0)
    path.write_bytes(b"some text")
    with pytest.raises(TrilobitError, match="1 file of different text, and training"):
        load_data(f"text:{tmp_path}", seed=0)
    path.write_bytes(bytes(1_000))
    monkeypatch.setattr(text_sources, "MOST_WINDOWS", 100)
    with pytest.raises(TrilobitError, match="800 training windows, and there may be 100; give a larger step"):
        load_data(f"text:{path}?length=4,step=1", seed=0)


def require_sound(source: str) -> None:
    """It is read, or refused in one line that can be written."""
    message = ""
    try:
        load_data(source, seed=0)
    except TrilobitError as error:
        message = str(error)
    assert "\n" not in message
    assert message.encode() == message.encode(errors="replace")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_text_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "it"
    path.write_bytes(content)
    for source in (f"text:{path}?length=4", f"csv:{path}"):
        require_sound(source)


@given(st.integers(0, len(ROWS) - 1), st.binary(max_size=3))
def test_a_damaged_table_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, at: int, what: bytes
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "it.csv"
    path.write_bytes(ROWS.encode()[:at] + what + ROWS.encode()[at + 1 :])
    require_sound(f"csv:{path}")
