"""Files of the right schema and another shape are one line with file and field."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.documents import read_document, write_document
from hw_profiles.errors import TrilobitError
from nas.run.documents import Environment, SamplesFile, SensitivityFile, State, Timings, genomes_of
from nas.run.front_document import Front, read_front
from nas.search.objectives import OBJECTIVES
from supernet.families.family import load_family

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
KINDS = {kind.SCHEMA: kind for kind in (SensitivityFile, Environment, Front, SamplesFile, State, Timings)}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schema": "state/1", "stageq": {}}, None),  # a field of a newer version, and no stage
        ({"schema": "state/1", "stages": []}, "stages: expected an object, got a list"),
        ({"schema": "state/1", "stages": {"train": {"seconds": 1}}}, "stages.train.fingerprint: missing"),
        (
            {"schema": "state/1", "stages": {"train": {"fingerprint": "0", "seconds": -1}}},
            "stages.train.seconds: expected at least 0, got -1",
        ),
        ({"schema": "timings/1", "stages": {"fit": "1"}}, 'stages.fit: expected a finite number, got "1"'),
        ({"schema": "env/1", "versions": {"torch": 2}, "seed": 0}, "versions.torch: expected a text, got 2"),
        (
            {"schema": "damage/1", "supernet": "0", "options": {"a": [None]}},
            "options.a[0]: expected a finite",
        ),
        (
            {"schema": "samples/1", "fingerprint": "", "strategy": "", "kinds": [], "genes": [[0, 40_000]]},
            "genes[0][1]: a gene is from 0 to 32767, got 40000",
        ),
    ],
)
def test_a_damaged_document_is_one_line(tmp_path: Path, document: dict[str, Any], said: str | None) -> None:
    path = tmp_path / "it.json"
    path.write_text(json.dumps(document))
    kind = KINDS[document["schema"]]
    if said is None:
        read_document(path, kind)
        return
    with pytest.raises(TrilobitError) as error:
        read_document(path, kind)
    assert str(error.value).startswith(f"{path}: {said}")
    assert str(error.value).endswith(kind.REMEDY)


def test_damage_is_kept_as_it_was(tmp_path: Path) -> None:
    kept = SensitivityFile("abc", {"s0.b0.expand": (0.0, 0.25)})
    write_document(tmp_path / "damage.json", kept)
    assert read_document(tmp_path / "damage.json", SensitivityFile) == kept


def test_genomes_of_another_space_are_refused(tmp_path: Path) -> None:
    width, most = len(SPACE.choices), int(SPACE.cardinalities[0])
    assert genomes_of(tmp_path, [(0,) * width], SPACE).shape == (1, width)
    assert genomes_of(tmp_path, [], SPACE).shape == (0, width)
    for row in ((0,) * (width - 1), (most, *(0,) * (width - 1))):
        with pytest.raises(TrilobitError, match=r"genes of another space|outside its choice's options"):
            genomes_of(tmp_path, [(0,) * width, row], SPACE)


def front(**changes: Any) -> dict[str, Any]:
    candidate = SPACE.candidate(np.zeros(len(SPACE.choices), np.int16))
    values = {"accuracy": {"value": 0.9}, "latency": {"value": 1e-4, "iqr": 0.0}, "size": {"value": 9.0}}
    entry = {"id": candidate.id, "genes": list(candidate.genes), "predicted": values, "measured": values}
    return {
        "schema": "front/1",
        "space": {"name": "x", "fingerprint": SPACE.fingerprint, "size": 10**40},
        "device": "none",
        "objectives": [{"name": "accuracy", "bound": None}],
        "rounds": [],
        "candidates": [{**entry, **changes}],
        "evaluated": [],
        "reference": entry,
    }


def test_a_front_is_read_with_its_genes_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(front()))
    assert read_front(path, SPACE).measured("accuracy", "memory").tolist() == [
        [0.9, pytest.approx(np.nan, nan_ok=True)]
    ]


def test_an_objective_of_a_file_is_one_there_is(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    for name in OBJECTIVES:
        path.write_text(json.dumps({**front(), "objectives": [{"name": name, "bound": None}]}))
        assert read_front(path, SPACE).objectives[0].name == name
    path.write_text(json.dumps({**front(), "objectives": [{"name": "luck", "bound": None}]}))
    with pytest.raises(TrilobitError, match=r"objectives\[0\]\.name: unknown objective 'luck'"):
        read_front(path, SPACE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "abcdef"}, r"network abcdef has the genes of [0-9a-f]{12}"),
        ({"id": "../x"}, r"candidates\[0\]\.id: an id is letters and digits"),
        ({"genes": [0]}, "genes of another space"),
        ({"measured": {"accuracy": {"value": 1}}}, "no measured latency"),
        ({"measured": {"accuracy": {"value": None}}}, "measured.accuracy.value: expected a finite number"),
    ],
)
def test_a_front_that_does_not_hold_together_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(front(**changes)))
    with pytest.raises(TrilobitError, match=said):
        read_front(path, SPACE)
