"""A made-up device for the real `digits-mbconv` space: numbers of a formula, not of a measurement."""

import contextlib
import gc
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from alembic.util import pyfiles
from hypothesis import HealthCheck, settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.latency_model import WholeNetwork, count_rows, fit_calibration
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import save_profile
from hw_profiles.runtimes.info import DeviceInfo
from nas.checks import confined
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family
from tests import published_data

torch.set_num_threads(1)  # more would wait for each other whenever anything else wants a core
# No verdict depends on how fast the machine is, or on what else runs on it. What is found with a few examples
# is found every day; `make test-slow` asks for many.
ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", ANY_MACHINE, max_examples=25)
settings.register_profile("thorough", ANY_MACHINE, max_examples=200)
settings.load_profile("quick")

SLOPE, SESSION_S = 0.9, 8e-6  # of whole networks against sums of rows
WHOLE = 24  # networks of each precision "measured" as a whole, half of them held out
DEVICE = DeviceInfo("made-up-cpu", "no CPU", "formula", "1", "none", integer_sums="exact")


def layer_s(layer: Layer) -> float:
    """Overhead, memory and arithmetic; int8 helps all but depthwise convolutions."""
    touched = np.prod(layer.in_shape) + np.prod(layer.out_shape)
    work_s = float(touched) / 8e9 + macs(layer) / 2e10
    speed = 1.0 if layer.activation_format == "fp32" else 0.8 if layer.depthwise else 2.5
    return 2e-7 + work_s / speed


def whole_networks(family: Family, profile: DeviceProfile) -> list[WholeNetwork]:
    space, rng = family.space(), np.random.default_rng(0)
    formats = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    networks = []
    for precision, gene in (("fp32", 0), ("int8", 1), ("mixed", None)):
        genomes = space.sample(WHOLE, rng=rng)
        if gene is not None:
            genomes[:, formats] = gene
        for i, genome in enumerate(genomes):
            work = family.workload(space.candidate(genome))
            sums_s, rows = profile.sums_s(work), count_rows(work)
            measured_s = (SLOPE * sum(sums_s) + SESSION_S) * (1 + rng.normal(0, 0.01))
            networks.append(WholeNetwork(precision, i % 2 == 1, sums_s, rows, measured_s, 0.01 * measured_s))
    return networks


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while modules are imported, and never again at what they and the tests are."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which promises were not tested for lack of data."""
    if lines := published_data.summary(terminalreporter.stats.get("skipped", [])):
        terminalreporter.section(f"not tested: {published_data.FOLDER} lacks")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def data_file() -> published_data.DataFile:
    """Return the path of a file of published data, or skip the test."""
    return published_data.data_file


@pytest.fixture(scope="session")
def family() -> Family:
    """What the embedded data is searched in."""
    return load_family("digits-mbconv", in_channels=1, classes=10)


@pytest.fixture(scope="session")
def device_profile(family: Family) -> DeviceProfile:
    """Every layer of the space, five samples each, calibrated."""
    layers = distinct_layers(family.space(), family.terms())
    spread = np.array([0.99, 1.0, 1.0, 1.0, 1.01])
    table = {layer: Measurement(tuple((layer_s(layer) * spread).tolist())) for layer in layers}
    profile = DeviceProfile(DEVICE, MeasurePlan(), table)
    return DeviceProfile(DEVICE, MeasurePlan(), table, fit_calibration(whole_networks(family, profile)))


@pytest.fixture(scope="session", autouse=True)
def _short_learning() -> Iterator[None]:
    """A second for every backend that measures, to learn how quiet this core can be, is not spent: no test
    is about how exact its times are.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hw_profiles.measure.interleave.LEARNING_S", 0.02)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_board_is_slow() -> Iterator[None]:
    """Nobody is told of a board that a busy machine is slow to start: tests compare what is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hw_profiles.runtimes.transports.boards.SLOW_S", 3600.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Nothing waits for the disk, here: no test cuts the power. `test_failures` watches what is flushed, and
    processes of their own, which tests kill, flush as ever.
    """

    def unsynchronised(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            with contextlib.suppress(
                sqlite3.Error
            ):  # of files that are none; what is asked of them next says so
                connection.execute("PRAGMA synchronous = OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        event.listen(Engine, "connect", unsynchronised)
        yield
        event.remove(Engine, "connect", unsynchronised)


@pytest.fixture(scope="session", autouse=True)
def _known_migrations() -> Iterator[None]:
    """Optuna runs the files of all its migrations whenever a storage is opened: here once, as they stay what
    they are.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfiles, "load_module_py", cache(pyfiles.load_module_py))
        yield


@pytest.fixture
def confined_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confined work is done in this process, which a process of its own takes up to a second for: where
    neither its limits nor hostile files are what is tested. Requests and answers are files as ever.
    """

    def run(folder: Path, limits: confined.Limits, on_tick: Callable[[float], None]) -> None:
        on_tick(0.0)
        (folder / confined.ANSWER).write_text(json.dumps(confined._work(folder)))

    monkeypatch.setattr(confined, "_run", run)
    monkeypatch.setattr(confined, "_limit", lambda limits: None)


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """Signals that end a process do so, in children too: what a shell starts in the background ignores
    Ctrl-C, and under nohup the end of the terminal.
    """
    usual = {
        signal.SIGINT: signal.default_int_handler,
        **dict.fromkeys((signal.SIGTERM, signal.SIGHUP), signal.SIG_DFL),
    }
    ignored = [number for number in usual if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def quick_measuring() -> str:
    """For a run's TOML: rough but fast. No spread is too wide, since such rows would be predicted instead."""
    return """
[measure]
rounds = 2
sessions = 1
window_s = 5e-5
waiting_s = 0.0
max_spread = 100.0
"""


@pytest.fixture(scope="session")
def profile_file(device_profile: DeviceProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile as the `recorded` device reads it."""
    path = tmp_path_factory.mktemp("profiles") / "made-up-cpu.json"
    save_profile(device_profile, path)
    return path
