"""A network in integers only as a library: every bit of plain numpy, and no floating point within."""

import ctypes
import subprocess
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("tvm")

from hw_profiles.runtimes.tvm_cpu.standalone import float_operations
from hw_profiles.runtimes.tvm_cpu.target import host_target
from nas.checks.check import TextInput
from nas.cli.main import main
from nas.emit.to_onnx import emit
from nas.export.library.check import export_library
from nas.export.library.to_tvm import build_library
from nas.run.command_sections import BenchSection
from nas.serving.bench import bench
from supernet.data.tokens import PADDING, Texts
from supernet.ptq.calibrate import observe, quantize
from supernet.ptq.integer_only import quantize_integer_only
from supernet.tasks.sequence_classification import SequenceClassification
from tests.nas.exported import write_exported
from tests.supernet.ptq.integer_networks import FAMILIES, TEXTS, by_arithmetic, examples, subnet_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", FAMILIES)
def test_a_library_gives_every_bit_of_the_arithmetic(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    network = quantize_integer_only(subnet_of(family), examples(family, 64))
    library = build_library(network, database=tmp_path / "database", tuned=False)
    assert library.integer_only
    assert float_operations(library.plan, host_target()) == []
    (tmp_path / "model.so").write_bytes(library.code)
    run = ctypes.CDLL(str(tmp_path / "model.so")).trilobit_run
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    tried = examples(family, 12, seed=3)
    wanted = by_arithmetic(network, tried)
    for x, row in zip(tried.numpy(), wanted, strict=True):
        stored = np.ascontiguousarray(x.transpose(1, 2, 0) if x.ndim == 3 else x)
        answer = np.zeros(library.plan.output.shape, np.float32)
        assert run(stored.ctypes.data, answer.ctypes.data) == 0
        np.testing.assert_array_equal(answer.ravel(), row.ravel())


def few_texts(count: int, length: int) -> SequenceClassification:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, length + 1, count)
    ends = np.cumsum(sizes)
    letters = rng.integers(97, 123, ends[-1]).astype(np.uint8)
    texts = Texts(letters, ends - sizes, ends, rng.integers(0, TEXTS.classes, count), length)
    return SequenceClassification("made-up", tuple("abcde"), texts, texts[::2], texts[::3])


def test_a_library_of_texts_is_shipped_verified_and_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subnet, x = subnet_of(TEXTS), examples(TEXTS, 64)
    length, data = x.shape[1], few_texts(30, x.shape[1])
    config = SimpleNamespace(
        export=SimpleNamespace(library="host", integer_only=True),
        device=SimpleNamespace(settings={"database": str(tmp_path / "database")}),
    )
    run: Any = SimpleNamespace(config=config, task=data, recorded=False, device=SimpleNamespace(runtime=None))
    plain = quantize(subnet, TEXTS.workload(TEXTS.extreme("largest")), observe(subnet, x))
    reads = TextInput(length, PADDING + 1)
    monkeypatch.setattr(import_module("nas.export.library.to_tvm"), "run_locally", None)
    library = export_library(run, quantize_integer_only(subnet, x), emit(plain), reads)
    assert library is not None
    assert library.record["agreement"] >= 0.8
    folder = write_exported(
        tmp_path / "export",
        plain,
        reads,
        data,
        files=library.files,
        library=dict(library.record),
        opset=23,  # that attention needs
    )
    assert main(["verify", str(folder), "--run-library"]) == 0
    (served,) = bench(folder / "model.so", BenchSection(seconds=0.02), run_library=True).settings
    assert served.counted == "texts"
    (folder / "it.txt").write_text("some")
    for line in (["cc", "example.c", "-ldl", "-o", "example"], ["./example", "it.txt"]):
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    ids = np.full((1, length), PADDING)
    ids[0, :4] = list(b"some")
    expected = by_arithmetic(quantize_integer_only(subnet, x), torch.from_numpy(ids))
    assert int(done.stdout) == expected.argmax()
