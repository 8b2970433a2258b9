"""One reader for every document: what fits becomes a noun, what does not is one line with file and field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.documents import MismatchError, parse, read_document, to_json, write_document
from hw_profiles.errors import TrilobitError


def _even(value: int) -> None:
    if value % 2:
        raise ValueError(f"expected an even number, got {value}")


@dataclass(frozen=True)
class Leaf:
    genes: tuple[int, ...]
    score: float = 0.0
    note: str | None = None

    def __post_init__(self) -> None:
        if self.score < 0:
            raise ValueError(f"a score of {self.score:g} is below 0")


@dataclass(frozen=True)
class Tree:
    SCHEMA: ClassVar[str] = "tree/1"
    REMEDY: ClassVar[str] = "plant it again"
    kind: Literal["oak", "ash"]
    leaves: tuple[Leaf, ...]
    sizes: Mapping[str, Annotated[int, _even]] = field(default_factory=dict)
    pair: tuple[str, int] = ("a", 1)
    alive: bool = True
    extra: Any = None


TREE = Tree("oak", (Leaf((1, 2), 0.5, "green"), Leaf(())), {"x": 2}, ("b", 3))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    write_document(path, TREE)
    assert read_document(path, Tree) == TREE
    assert json.loads(path.read_text())["schema"] == "tree/1"


def test_a_newer_file_with_more_fields_and_an_older_with_fewer_are_read() -> None:
    assert parse(Leaf, {"genes": [1], "unheard_of": 1}) == Leaf((1,))


MISMATCHES: list[tuple[list[str | int], Any, str]] = [
    (["leaves", 1, "genes"], "x", 'leaves[1].genes: expected a list, got "x"'),
    (["leaves", 0, "genes", 1], "x", 'leaves[0].genes[1]: expected an integer, got "x"'),
    (["leaves", 0, "genes", 1], True, "leaves[0].genes[1]: expected an integer, got true"),
    (["leaves", 0, "genes", 1], 1.0, "leaves[0].genes[1]: expected an integer, got 1.0"),
    (["leaves", 0, "genes", 1], 2**64, "expected an integer of at most 64 bits"),
    (["leaves", 0, "score"], -1, "leaves[0]: a score of -1 is below 0"),
    (["leaves", 0, "score"], 10**400, "leaves[0].score: expected a finite number, got a number too large"),
    (["leaves", 0, "score"], None, "leaves[0].score: expected a finite number, got null"),
    (["leaves", 0, "note"], [], "leaves[0].note: expected a text, got a list"),
    (["leaves", 0, "note"], "\ud800", "got one with characters that no text has"),
    (["leaves", 0, "note"], "a\0b", "got one with characters that no text has"),
    (["leaves", 0], 3, "leaves[0]: expected an object, got 3"),
    (["leaves"], {}, "leaves: expected a list, got an object"),
    (["kind"], "elm", 'kind: expected one of oak, ash, got "elm"'),
    (["sizes", "x"], 3, "sizes.x: expected an even number, got 3"),
    (["sizes", "not a name"], "w" * 99, 'sizes["not a name"]: expected an integer, got "www'),
    (["pair"], ["a"], "pair: expected a list of 2, got a list"),
    (["pair", 1], "a", 'pair[1]: expected an integer, got "a"'),
    (["alive"], 1, "alive: expected true or false, got 1"),
]


@pytest.mark.parametrize(("place", "value", "message"), MISMATCHES)
def test_a_mismatch_is_one_line_with_file_and_field(
    tmp_path: Path, place: list[str | int], value: Any, message: str
) -> None:
    document = json.loads(json.dumps({"schema": "tree/1", **to_json(TREE)}))
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(document))
    with pytest.raises(TrilobitError) as error:
        read_document(path, Tree)
    text = str(error.value)
    assert message in text
    assert text.startswith(f"{path}: ")
    assert text.endswith("; plant it again")
    assert "\n" not in text
    assert len(text) < 300
    assert text.isascii()


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"^leaves\[0\]\.genes: missing$"):
        parse(Tree, {"kind": "oak", "leaves": [{}]})


BROKEN = {
    "nested too deeply": '{"a":' * 100_000,
    "nested too deeply in lists": "[" * 100_000,
    "a number of 100,000 digits": '{"schema": "tree/1", "kind": ' + "9" * 100_000 + "}",
    "infinity by overflow": '{"schema": "tree/1", "kind": "oak", "leaves": [{"genes": [], "score": 1e999}]}',
    "not a number": '{"schema": "tree/1", "kind": NaN}',
    "a name twice": '{"schema": "tree/1", "kind": "oak", "kind": "ash", "leaves": []}',
    "no UTF-8": b'{"schema": "tree/1", "\xff": 1}',
    "no object": "[]",
    "another schema": json.dumps({"schema": "x" * 10_000}),
    "a schema that is a list": json.dumps({"schema": [["\ud800"]]}),
    "nothing": "",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_document_is_one_short_line(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / "tree.json", BROKEN[name]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TrilobitError) as error:
        read_document(path, Tree)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["kind", "leaves", "genes", "x"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_data_is_a_noun_or_a_mismatch(data: Any) -> None:
    try:
        tree = parse(Tree, data)
    except MismatchError:
        return
    assert parse(Tree, json.loads(json.dumps(to_json(tree)))) == tree
