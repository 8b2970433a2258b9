"""The database of tuned units: what survives, what is renewed, what is not chosen."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.graph.layer import Layer, parse_key
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidates
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.tuning import Database, choose, run_locally, tune
from hw_profiles.runtimes.tvm_cpu.unit import Array, CompiledUnit

SEVERAL = parse_key("conv 16x4x4>16 k1s1g1 relu w=int8 a=int8")


def no_runner(library: Path, symbol: str, arrays: Sequence[Array]) -> tuple[Array, float]:
    raise AssertionError("nothing is to be timed")


def entry(folder: Path) -> tuple[Path, dict[str, object]]:
    (path,) = folder.rglob("*.json")
    return path, json.loads(path.read_text())


def tuned(layer: Layer, database: Database) -> CompiledUnit:
    ((_, unit),) = tune([layer], database, run_locally)
    assert isinstance(unit, CompiledUnit)
    return unit


def test_a_tuned_unit_is_only_loaded_the_next_time(tiny: Layer, host: TvmTarget, folder: Path) -> None:
    unit = tuned(tiny, Database(folder, host))
    assert list(tune([tiny, tiny], Database(folder, host), no_runner)) == [(tiny, unit)]


def test_what_was_only_compiled_is_tuned_where_that_is_possible(
    tiny: Layer, host: TvmTarget, folder: Path
) -> None:
    database = Database(folder, host)
    (compiled,) = tune([tiny], database, None)
    assert list(tune([tiny], database, None)) == [compiled]
    assert entry(folder)[1]["tuned"] is False
    assert isinstance(compiled[1], CompiledUnit)
    assert compiled[1].seconds is None
    tuned(tiny, database)
    assert entry(folder)[1]["tuned"] is True


def test_nothing_is_written_before_something_is_tuned(host: TvmTarget, folder: Path) -> None:
    assert list(tune([], Database(folder, host), no_runner)) == []
    assert not folder.exists()


def test_the_fastest_is_chosen_and_all_trials_are_kept(host: TvmTarget, folder: Path) -> None:
    seconds = iter(range(9, 0, -1))

    def runner(library: Path, symbol: str, arrays: Sequence[Array]) -> tuple[Array, float]:
        return run_locally(library, symbol, arrays)[0], float(next(seconds))

    candidates = compile_candidates(SEVERAL, host)
    assert len(candidates) > 2
    unit = choose(SEVERAL, candidates, Database(folder, host), runner)
    assert isinstance(unit, CompiledUnit)
    assert unit.tile == candidates[-1].tile
    _, document = entry(folder)
    assert [trial["median_s"] for trial in document["trials"]] == [9.0 - i for i in range(len(candidates))]
    assert document["tuned"] is True
    assert unit.seconds == 9.0 - len(candidates) + 1
    assert Database(folder, host).load(SEVERAL) == unit


def test_what_computes_something_else_or_fails_is_not_chosen(host: TvmTarget, folder: Path) -> None:
    candidates = compile_candidates(SEVERAL, host)[:3]

    def runner(library: Path, symbol: str, arrays: Sequence[Array]) -> tuple[Array, float]:
        found, _ = run_locally(library, symbol, arrays)
        if symbol == candidates[0].symbol:
            raise RuntimeError("the board is on fire")
        return (found + 1 if symbol == candidates[1].symbol else found), 1.0

    unit = choose(SEVERAL, candidates, Database(folder, host), runner)
    assert isinstance(unit, CompiledUnit)
    assert unit.tile == candidates[2].tile
    _, document = entry(folder)
    errors = [trial.get("error") for trial in document["trials"]]
    assert errors == ["RuntimeError: the board is on fire", "computes something else", None]


def test_without_a_candidate_there_is_a_reason(host: TvmTarget, folder: Path) -> None:
    broken = [replace(each, error="no such tile") for each in compile_candidates(SEVERAL, host, 1)]
    assert choose(SEVERAL, broken, Database(folder, host), no_runner) == "no such tile"
    assert not folder.exists()


def test_for_another_machine_the_first_schedule_is_taken(tiny: Layer, folder: Path) -> None:
    board = TvmTarget("cortex-a76", "aarch64-linux-gnu")
    ((_, unit),) = tune([tiny], Database(folder, board), None)
    assert isinstance(unit, CompiledUnit)
    assert entry(folder)[1]["tuned"] is False
    assert unit.object_file.read_bytes()[18:20] == b"\xb7\x00"  # the ELF machine number of AArch64


@pytest.mark.parametrize("damage", ["object", "json", "hash", "missing"])
def test_a_broken_entry_is_renewed(damage: str, tiny: Layer, host: TvmTarget, folder: Path) -> None:
    database = Database(folder, host)
    unit = tuned(tiny, database)
    path, document = entry(folder)
    if damage == "object":
        unit.object_file.write_bytes(unit.object_file.read_bytes()[:-1])
    elif damage == "json":
        path.write_text(path.read_text()[:100])
    elif damage == "hash":
        path.write_text(json.dumps(document | {"object": "0" * 64}))
    else:
        unit.object_file.unlink()
    assert database.load(tiny) is None
    assert tuned(tiny, database).symbol == unit.symbol
    assert database.load(tiny) is not None


def test_targets_do_not_share_objects(tiny: Layer, host: TvmTarget, folder: Path) -> None:
    first = tuned(tiny, Database(folder, host))
    other = Database(folder, TvmTarget("cortex-a76", "aarch64-linux-gnu"))
    assert other.load(tiny) is None
    assert Database(folder, host).load(tiny) == first


def test_running_here_gives_the_result_and_a_time(tiny: Layer, host: TvmTarget, folder: Path) -> None:
    unit = tuned(tiny, Database(folder, host))
    _, document = entry(folder)
    (trial,) = document["trials"]
    assert 0 < trial["median_s"] < 0.1  # seconds, not micro- or nanoseconds
    assert np.prod(unit.arguments[-1].shape) == 16
