"""Every runtime that can be on a board answers there what it answers here."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.plugin import device_kind, open_device
from hw_profiles.runtimes.runtime import Artifact, FusesSums, KernelTimer, WritesFiles
from hw_profiles.runtimes.transports import board_kind
from hw_profiles.runtimes.transports.ssh import PROGRAM
from nas.stages.profile import emit_with_random_numbers
from tests.hw_profiles.transports.pipes import stand_in

RUNTIMES = sorted(name for name in DEVICES if device_kind(name).elsewhere)
PLAN = MeasurePlan(rounds=3, waiting_s=0.0)
SHAPE = (16, 8, 8)


@pytest.fixture(scope="module", params=RUNTIMES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[MeasuredDevice, MeasuredDevice]]:
    """A runtime here, and the same on a board."""
    for module in device_kind(request.param).engines:
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROGRAM, stand_in(folder))
        board_kind.boards_of.cache_clear()
        there = open_device(f"ssh:board/{request.param}:python={sys.executable},folder={folder / 'cache'}")
        here = open_device(request.param)
        assert isinstance(here, MeasuredDevice)
        assert isinstance(there, MeasuredDevice)
        yield here, there
        there.transport.boards.close()  # type: ignore[attr-defined]


def model(fmt: str) -> Artifact:
    work = single(map_layer("conv", SHAPE, 16, 3, 1, 1, "relu", fmt, fmt))
    return Artifact(emit_with_random_numbers(work, seed=0), exact_sums=True)


@pytest.mark.parametrize("fmt", ["fp32", "int8"])
def test_a_file_is_the_same_there(pair: tuple[MeasuredDevice, MeasuredDevice], fmt: str) -> None:
    ours, theirs = (device.runtime.compile(model(fmt)) for device in pair)
    assert (theirs.inputs, theirs.outputs) == (ours.inputs, ours.outputs)
    image = np.random.default_rng(0).standard_normal((1, *SHAPE), np.float32)
    [answer], [expected] = (each.run({ours.inputs[0].name: image}).values() for each in (theirs, ours))
    np.testing.assert_array_equal(answer, expected)
    assert theirs.kernels() == ours.kernels()
    assert isinstance(theirs, FusesSums) == isinstance(ours, FusesSums)
    if isinstance(theirs, FusesSums) and isinstance(ours, FusesSums):
        assert theirs.fused_sums() == ours.fused_sums()
    assert theirs.timed("wall", example={ours.inputs[0].name: image})(3) > 0


def test_it_is_the_same_runtime(pair: tuple[MeasuredDevice, MeasuredDevice]) -> None:
    here, there = (device.describe() for device in pair)
    assert there.name == f"ssh-board-{here.name}"
    for field in ("engine", "engine_version", "provider", "threads", "batch", "cpu", "integer_sums"):
        assert getattr(there, field) == getattr(here, field), field
    ours, theirs = (device.runtime for device in pair)
    for fact in ("artifact", "clock", "dialect", "formats", "integer_kernels"):
        assert getattr(theirs, fact) == getattr(ours, fact), fact
    assert isinstance(theirs, WritesFiles) == isinstance(ours, WritesFiles)
    if isinstance(ours, WritesFiles) and isinstance(theirs, WritesFiles):
        assert theirs.file_name == ours.file_name
        assert theirs.own_file(model("fp32").content) == ours.own_file(model("fp32").content)


def test_kernels_are_timed_there_where_they_are_here(pair: tuple[MeasuredDevice, MeasuredDevice]) -> None:
    ours, theirs = (device.runtime for device in pair)
    if not isinstance(ours, KernelTimer):
        assert theirs.kernel_times(model("fp32"), 2) == ()  # type: ignore[attr-defined]
        return
    assert isinstance(theirs, KernelTimer)
    here, there = (runtime.kernel_times(model("int8"), 3) for runtime in (ours, theirs))
    assert [(k.name, k.op, k.reads, k.gives) for k in there] == [
        (k.name, k.op, k.reads, k.gives) for k in here
    ]


def test_it_is_timed_there_and_what_it_rejects_is_a_row(pair: tuple[MeasuredDevice, MeasuredDevice]) -> None:
    _, there = pair
    good, bad = there.transport.sample(
        there.runtime, [model("fp32"), Artifact(b"no model")], ["one", "one"], PLAN
    )
    assert len(good.samples_s) == PLAN.rounds
    assert bad.error is not None
    assert "\n" not in bad.error
    with pytest.raises(TrilobitError):
        there.runtime.compile(Artifact(b"no model"))
