"""What networks need on a microcontroller: counted as a search does, and as its interpreter does."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.reported_times import report_form
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.tflite_micro import sizes
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from tests.published_data import data_file

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tflite_micro")

from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.litert.runtime import LitertRuntime
from hw_profiles.runtimes.litert.to_tflite import to_tflite
from hw_profiles.runtimes.microcontroller.runtime import MicroRuntime
from hw_profiles.runtimes.runtime import Artifact, Job
from hw_profiles.runtimes.tflite_micro.interpreter import MicroExecutable, micro_sizes

PLAN = MeasurePlan(rounds=1, waiting_s=0.0)
ARENA_ERROR, FLASH_ERROR = 4_000, 0.08  # bytes of what is kept; of a file


def networks(count: int) -> list[Workload]:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32", "int8"))
    space = family.space()
    return [family.workload(space.candidate(g)) for g in space.sample(count, rng=np.random.default_rng(7))]


def file_of(work: Workload) -> bytes:
    return to_tflite(emit(random_network(work, rng=np.random.default_rng(0))), lean=True)


def test_what_a_search_counts_is_near_what_the_interpreter_takes() -> None:
    for work in networks(8):
        taken = micro_sizes(file_of(work))
        kept = sum(map(sizes.kept_bytes, work.layers)) + sizes.kept_always()
        arena = peak_bytes(work) + kept
        flash = sum(map(sizes.flash_bytes, work.layers)) + sizes.file_bytes()
        assert arena == pytest.approx(taken.arena_bytes, abs=ARENA_ERROR)
        assert flash == pytest.approx(taken.flash_bytes, rel=FLASH_ERROR)
        assert taken.planned_bytes + taken.kept_bytes == taken.arena_bytes


def test_it_answers_as_the_builtin_kernels_of_litert() -> None:
    """Both compute by the reference's arithmetic: codes rescaled by 31 bits."""
    [work] = networks(1)
    content = file_of(work)
    _, height, width = work.in_shape
    image = np.random.default_rng(1).standard_normal((1, height, width, 1)).astype(np.float32)
    [micro] = MicroExecutable(content).run(image)
    builtin = LitertRuntime(LitertOptions("builtin")).compile(Artifact(content))
    [other] = builtin.run({builtin.inputs[0].name: image.transpose(0, 3, 1, 2)}).values()
    assert np.abs(micro - other).max() <= 0.1 * np.abs(other).max()


def test_an_arena_that_is_too_small_is_said() -> None:
    [work] = networks(1)
    with pytest.raises(TrilobitError, match="TensorFlow Lite Micro: "):
        MicroExecutable(file_of(work), arenas_bytes=(2_000,))


@pytest.mark.parametrize(("name", "kib"), [("mlperf_tiny_resnet8", 100), ("mlperf_tiny_vww96", 200)])
def test_published_networks_fit_the_arenas_of_their_reference(name: str, kib: int) -> None:
    """mlcommons/tiny, benchmark/reference_submissions/{image_classification,person_detection}/
    submitter_implemented.cpp: kTensorArenaSize of 100 and 200 KiB, for int8; ours is the network in fp32,
    whose tensors take four times as much.
    """
    taken = micro_sizes(to_tflite(data_file(f"models/{name}.onnx").read_bytes(), lean=True))
    assert taken.planned_bytes / 4 + taken.kept_bytes <= kib * 1024


def test_what_the_interpreter_has_no_operator_for_is_no_layer_of_it() -> None:
    """A search of transformers is refused before anything is trained, not by its first finalist."""
    family, runtime = load_family("digits-vit", in_channels=1, classes=10), MicroRuntime()
    work = family.workload(family.extremes()["smallest/fp32"])
    lacking = {layer for layer in work.layers if not runtime.supports(layer)}
    assert {layer.kind for layer in lacking} == {"Gelu"}
    assert all(runtime.why_not(layer) == "TensorFlow Lite Micro has no Gelu" for layer in lacking)
    with pytest.raises(TrilobitError, match="GELU"):
        micro_sizes(file_of(work))
    assert all(map(LitertRuntime().supports, work.layers))


def test_files_of_any_batch_run_one_at_a_time() -> None:
    [work] = networks(1)
    content = emit(random_network(work, rng=np.random.default_rng(0)), batch=None)
    executable = MicroRuntime().compile(Artifact(content))
    image = np.random.default_rng(1).standard_normal((1, *work.in_shape)).astype(np.float32)
    [logits] = executable.run({executable.inputs[0].name: image}).values()
    assert logits.shape == (1, 10)


def test_times_of_a_board_are_looked_up_and_said_to_be_reported(tmp_path: Path) -> None:
    [work] = networks(1)
    form = report_form(dict.fromkeys(work.layers)).splitlines()
    path = tmp_path / "board.csv"
    path.write_text("\n".join((form[0], *(f"{line}2" for line in form[1:]))))
    device = open_device(f"tflite-micro:{path}")
    info = device.describe()
    assert (info.name, info.figures, device.timed) == ("tflite-micro-board", "reported", False)
    [measured] = device.measure([Job(work, lambda: b"")], PLAN)
    assert measured.median_s == pytest.approx(2e-3 * len(work.layers))
    other = map_layer("conv", (3, 7, 7), 5)
    assert not device.supports(other)
    assert "not recorded in board" in device.why_not(other)


def test_what_is_no_table_of_times_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text("{}")
    with pytest.raises(TrilobitError, match=r"times\.json"):
        open_device(f"tflite-micro:{path}")
