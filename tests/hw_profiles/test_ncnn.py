"""ncnn as a runtime: what it computes, in which numbers, and what it refuses."""

from importlib.util import find_spec

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import changed, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.runtimes.plugin import choice_of, choose, open_device
from hw_profiles.runtimes.runtime import Artifact, single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family

pytest.importorskip("ncnn")
if find_spec("pnnx") is None:
    pytest.skip("its importer, pnnx, is not installed", allow_module_level=True)

from hw_profiles.runtimes.ncnn.importer import Importer
from hw_profiles.runtimes.ncnn.options import NcnnOptions
from hw_profiles.runtimes.ncnn.runtime import NcnnRuntime, is_fine


@pytest.fixture(scope="module")
def runtime() -> NcnnRuntime:
    return NcnnRuntime()


def network(work: Workload) -> bytes:
    return emit(random_network(work, rng=np.random.default_rng(0)))


def extreme(name: str) -> Workload:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32", "int8"))
    return family.workload(family.extremes()[name])


def test_its_answers_are_those_of_onnx_runtime(runtime: NcnnRuntime) -> None:
    work = extreme("smallest/fp32")
    noise = np.random.default_rng(1).standard_normal((3, *work.in_shape)).astype(np.float32)
    executable = runtime.compile(Artifact(network(work)))
    ours, theirs = single_output(executable, noise), single_output(open_file(network(work)), noise)
    assert ours.shape == theirs.shape == (3, 10)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    kernels = executable.kernels()
    convolutions = sum(layer.op == "Conv" for layer in work.layers)
    assert kernels["Convolution"] + kernels["ConvolutionDepthWise"] == convolutions
    assert kernels["InnerProduct"] == 1


def test_it_says_of_itself_how_it_is_opened_again() -> None:
    assert is_fine("f32")
    there = [name for name in ("f16", "bf16") if not is_fine(name)]
    for name in ("ncnn", "ncnn:threads=2", *(f"ncnn:{precision}" for precision in there)):
        assert choice_of(open_device(name).describe()) == choose(name)


def test_a_precision_is_what_it_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    work = extreme("smallest/fp32")
    noise = np.random.default_rng(1).standard_normal((1, *work.in_shape)).astype(np.float32)
    exact = single_output(open_file(network(work)), noise)
    for precision, digits in (("f16", 2**-10), ("bf16", 2**-7)):
        if is_fine(precision):
            continue  # as this processor has nothing else
        runtime = NcnnRuntime(NcnnOptions(precision=precision))
        off = np.abs(single_output(runtime.compile(Artifact(network(work))), noise) - exact).max()
        assert digits / 100 < off / np.abs(exact).max() < 30 * digits
    monkeypatch.setattr("hw_profiles.runtimes.ncnn.runtime.is_fine", lambda precision: True)
    with pytest.raises(TrilobitError, match="precision 'f16': ncnn computes in f32 on this processor"):
        open_device("ncnn:f16")


def test_what_it_does_not_take_is_refused_in_one_line(
    runtime: NcnnRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = map_layer("conv", (8, 4, 4), 8, 1, 1, 1, "none", "int8", "int8")
    assert not runtime.supports(layer)
    assert runtime.supports(changed(layer, weight_format="fp32", activation_format="fp32"))
    with pytest.raises(TrilobitError, match="ncnn") as refused:
        runtime.compile(Artifact(network(extreme("smallest/int8"))))
    assert "\n" not in str(refused.value)
    with pytest.raises(TrilobitError, match="one image at a time; input image has 4"):
        runtime.compile(
            Artifact(emit(random_network(extreme("smallest/fp32"), rng=np.random.default_rng(0)), batch=4))
        )
    monkeypatch.setattr("hw_profiles.runtimes.ncnn.importer.find_spec", lambda name: None)
    with pytest.raises(
        TrilobitError, match=r"the package pnnx is not installed: pip install 'trilobit\[ncnn"
    ):
        open_device("ncnn")


def test_a_file_is_imported_once(runtime: NcnnRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(single(map_layer("conv", (8, 4, 4), 8)))
    first = runtime.compile(Artifact(model))
    monkeypatch.setattr(Importer, "_imported", None)
    assert runtime.compile(Artifact(model)).kernels() == first.kernels()
