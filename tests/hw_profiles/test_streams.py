"""Random numbers: every purpose has a stream of its own."""

import ast
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hw_profiles.streams import Stream, open_stream, seed_of

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("hw_profiles", "supernet", "predictors", "nas")
    for path in (ROOT / package).rglob("*.py")
]
# these count their own steps, from a seed of their own; the split is the one that shipped supernets know
OWN_SEEDS = {
    "hw_profiles/streams.py",
    "nas/search/sampling_searcher.py",
    "nas/search/algorithms/pymoo_nsga.py",
    "supernet/data/splits.py",
}


def nodes_of(path: Path, *words: str) -> Iterator[ast.AST]:
    """The syntax tree of a module, where its text has one of the words."""
    text = path.read_text()
    if any(word in text for word in words):
        yield from ast.walk(ast.parse(text))


def test_seeds_are_put_together_in_one_place() -> None:
    offenders = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for call in nodes_of(path, "default_rng", "SeedSequence")
        if isinstance(call, ast.Call)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("default_rng", "SeedSequence")
        if any(isinstance(argument, ast.List | ast.Tuple | ast.BinOp) for argument in call.args)
    }
    assert offenders <= OWN_SEEDS


def test_every_stream_has_one_purpose() -> None:
    used = Counter(
        node.attr
        for path in SOURCES
        for node in nodes_of(path, "Stream.")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Stream"
    )
    assert set(used) == {stream.name for stream in Stream}
    assert not {name: times for name, times in used.items() if times > 1}


def test_no_two_streams_share_draws() -> None:
    keys = [(seed, stream, step) for seed in (0, 1, 7) for stream in Stream for step in range(4)]
    drawn = {open_stream(*key).integers(2**62): key for key in keys}
    assert len(drawn) == len(keys)


def test_a_stream_is_the_same_again() -> None:
    for stream, steps in itertools.product(Stream, ((), (3,), (3, 4))):
        a, b = (open_stream(5, stream, *steps).normal(size=3) for _ in range(2))
        np.testing.assert_array_equal(a, b)
    assert seed_of(5, Stream.LEAST_COSTS) == seed_of(5, Stream.LEAST_COSTS) < 2**31
