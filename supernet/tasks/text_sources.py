"""Readers of text, registered in `supernet.registry.SOURCES`. None of them downloads anything.

`train` trains the supernet, `validation` scores candidates during the search, `test` is kept for the networks
that are shipped.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.options import Range
from supernet.data.python_source import CLASSES, read_source, standard_library, token_classes
from supernet.data.source_options import known_options, number, split_options
from supernet.data.splits import SPLIT, stratified_split
from supernet.data.text_files import by_part, joined, read_text
from supernet.data.text_table import Table, read_table
from supernet.data.tokens import Bytes, Texts, Windows, spread, windows_over
from supernet.registry import SOURCE_FORMS
from supernet.tasks.language_modelling import BYTE_NAMES, LanguageModelling
from supernet.tasks.sequence_classification import SequenceClassification
from supernet.tasks.token_classification import TokenClassification

LENGTH, STEP = Range(2, 16_384), Range(1, 16_384)
USUAL_LENGTH = 256
MOST_WINDOWS = 2**24
MOST_SCORED = 2**17  # tokens of validation, and of the test: what networks say of them stays below 135 MB
# bytes of source that are told apart, of each part: 3 MB take a second on a desktop
MOST_LABELLED = {"train": 2**21, "validation": 2**19, "test": 2**19}

Labelled = tuple[Bytes, Bytes | None]  # a text, and the classes of its bytes


def read_python_bytes(argument: str, *, seed: int, cache: Path | None) -> LanguageModelling:
    """Return the source of the interpreter's standard library, of which bytes are predicted."""
    length, step = _window_options("python-bytes", _only_options("python-bytes", argument))
    parts = by_part(read_source(standard_library()), "python-bytes", seed=seed)
    texts = {part: joined(np.frombuffer(text, np.uint8) for text in inside) for part, inside in parts.items()}
    return _language_modelling("python-bytes", texts, length, step)


def read_own_text(argument: str, *, seed: int, cache: Path | None) -> LanguageModelling:
    """Return the text of a file or folder, of which bytes are predicted."""
    path, given = split_options(argument)
    if not path:
        raise TrilobitError(f"text needs a path: {SOURCE_FORMS['text']}")
    length, step = _window_options("text", given)
    return _language_modelling(Path(path).name or path, read_text(Path(path), seed=seed), length, step)


def read_python_tokens(argument: str, *, seed: int, cache: Path | None) -> TokenClassification:
    """Return source of the interpreter's standard library with the class of every byte."""
    length, step = _window_options("python-tokens", _only_options("python-tokens", argument))
    parts = by_part(read_source(standard_library()), "python-tokens", seed=seed)
    texts = {part: _labelled(inside, MOST_LABELLED[part]) for part, inside in parts.items()}
    windows = _windows("python-tokens", texts, length, step)
    return TokenClassification("python-tokens", CLASSES, *windows)


def read_text_table(argument: str, *, seed: int, cache: Path | None) -> SequenceClassification:
    """Return the texts of a CSV file by class."""
    path, given = split_options(argument)
    if not path:
        raise TrilobitError(f"csv needs a path: {SOURCE_FORMS['csv']}")
    known_options("csv", given, ("text", "label", "length"))
    length = number("csv", "length", given, LENGTH, default=USUAL_LENGTH)
    columns = given.get("text", "text"), given.get("label", "label")
    table = read_table(Path(path), text=columns[0], label=columns[1], length=length)
    train, validation, test = _three_parts(table, f"csv:{path}", seed)
    return SequenceClassification(Path(path).stem, table.classes, train, validation, test)


# -- options -------------------------------------------------------------------------------------------------


def _only_options(source: str, argument: str) -> dict[str, str]:
    """Return the options of a source that takes nothing else, with or without the `?`."""
    path, given = split_options(argument if "?" in argument else f"?{argument}")
    if path:
        raise TrilobitError(f"{source!r} takes no path, got {path!r}: {SOURCE_FORMS[source]}")
    return given


def _window_options(source: str, given: Mapping[str, str]) -> tuple[int, int]:
    """Return the length of windows, and how far training windows are apart: by default side by side."""
    known_options(source, given, ("length", "step"))
    length = number(source, "length", given, LENGTH, default=USUAL_LENGTH)
    return length, number(source, "step", given, STEP, default=length)


# -- parts ---------------------------------------------------------------------------------------------------


def _language_modelling(name: str, texts: Mapping[str, Bytes], length: int, step: int) -> LanguageModelling:
    windows = _windows(name, {part: (text, None) for part, text in texts.items()}, length, step)
    return LanguageModelling(name, BYTE_NAMES, *windows)


def _windows(
    source: str, texts: Mapping[str, Labelled], length: int, step: int
) -> tuple[Windows, Windows, Windows]:
    """Return training windows every `step` bytes, and others side by side, at most `MOST_SCORED` tokens of
    them, evenly from all of the part.

    Raises:
        TrilobitError: a part without a window, or more windows than can be counted.
    """
    for part, (text, _) in texts.items():
        if len(text) <= length:
            raise TrilobitError(
                f"{source}: {len(text):,} bytes of text for {part}, and a window of length={length} needs "
                f"{length + 1:,}; give more text, or a shorter length"
            )
    train, labels = texts["train"]
    if len(train) // step > MOST_WINDOWS:
        raise TrilobitError(
            f"{source}: {len(train) // step:,} training windows, and there may be {MOST_WINDOWS:,}; give a "
            f"larger step than {step}"
        )
    validation, test = (
        spread(windows_over(text, length, length, known), max(1, MOST_SCORED // length))
        for text, known in (texts["validation"], texts["test"])
    )
    return windows_over(train, length, step, labels), validation, test


def _labelled(sources: Iterable[bytes], most: int) -> Labelled:
    """Return the first sources as one text, and the classes of its bytes; those that cannot be told apart are
    left out.
    """
    texts: list[Bytes] = []
    labels: list[Bytes] = []
    total = 0
    for source in sources:
        if total >= most:
            break
        classes = token_classes(source)
        if classes is not None:
            texts.append(np.frombuffer(source, np.uint8))
            labels.append(classes)
            total += len(source)
    return joined(texts), joined(labels)  # what separates them, 0, is whitespace too


def _three_parts(table: Table, source: str, seed: int) -> tuple[Texts, Texts, Texts]:
    """Return train, validation and test, every class divided alike.

    Raises:
        TrilobitError: no texts, one class only, or too few texts of one.
    """
    counts = np.bincount(table.texts.labels, minlength=len(table.classes))
    if len(table.classes) < 2:
        what = f"only one class, {table.classes[0]!r}" if table.classes else "a header and no rows"
        raise TrilobitError(f"{source}: {what}; texts of at least two classes are needed")
    if counts.min() < len(SPLIT):
        name = table.classes[int(counts.argmin())]
        raise TrilobitError(
            f"{source}: class {name!r} has {counts.min()} text{'' if counts.min() == 1 else 's'}, fewer than "
            f"the {len(SPLIT)} parts; add some, or remove the class"
        )
    train, validation, test = stratified_split(table.texts.labels, SPLIT, seed=seed)
    return table.texts[train], table.texts[validation], table.texts[test]
