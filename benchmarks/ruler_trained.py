"""Networks with weights of ours that are timed in the rulers' turns, with their accuracy on the test part:
exported fronts, networks that were trained alone, and the largest of the supernet that was shipped first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joint_fixed import trained_networks

from hw_profiles.graph.layer import FP32
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Artifact, ArtifactKind, Executable, Job, Runtime
from nas.checks.parity import file_metric
from nas.emit.to_onnx import emit
from nas.evaluation.builder import NetworkBuilder
from nas.export.manifest import Manifest, read_manifest
from nas.export.seal import MANIFEST, MODEL_FILE
from nas.run.run import Run
from supernet.families.family import load_family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.evaluate import build_network
from supernet.train.checkpoint import load_weights
from supernet.zoo import shipped

ORT_FRONT, TVM_FRONT, ALONE, REFERENCE = (
    "front on ONNX Runtime",
    "front on own kernels",
    "trained alone",
    "reference",
)
ACCURACY, IMAGES = "test accuracy, %", "test images"
SHIPPED = "cifar-mbconv"


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network with weights of ours.

    Attributes:
        group: one of the words above.
        name: in the group.
        formats: `fp32`, `int8`, or `mixed`.
        artifact: what is timed.
        accuracy: share of right labels among `images` of the test part, through the file.
    """

    group: str
    name: str
    formats: str
    artifact: Artifact
    accuracy: float
    images: int

    @property
    def title(self) -> str:
        """What a result calls it."""
        return f"{self.group}: {self.name}"

    @property
    def figures(self) -> Mapping[str, float]:
        """What is known of it besides its time."""
        return {ACCURACY: 100 * self.accuracy, IMAGES: float(self.images)}


@dataclass(frozen=True)
class EveryKind:
    """Compiles artifacts of several kinds, each by the runtime of its kind."""

    runtimes: Mapping[ArtifactKind, Runtime]

    def compile(self, artifact: Artifact) -> Executable:
        """Return it ready to run."""
        return self.runtimes[artifact.kind].compile(artifact)


def runtime_of(kind: ArtifactKind) -> Runtime:
    """Return what runs files, or libraries, on this machine."""
    runtime = open_device({"onnx": "ort", "library": "tvm"}[kind]).runtime
    assert runtime is not None
    return runtime


def front_networks(run: Run, kernels: Runtime | None) -> Iterator[TrainedNetwork]:
    """Yield the exported networks of a run: as files, or where it is of own kernels, linked from these.

    Args:
        kernels: the runtime of own kernels; needed for such a run.

    Raises:
        RuntimeError: a network cannot be linked.
        TrilobitError: a manifest is damaged.
    """
    for path in sorted(run.folder.glob(f"export/*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        formats = set(manifest.policy.values())
        artifact, group, share = Artifact((path.parent / MODEL_FILE).read_bytes()), ORT_FRONT, None
        if run.device.describe().engine == "apache-tvm":
            assert kernels is not None
            artifact, group = _linked(run, manifest, kernels), TVM_FRONT
            share = manifest.library.test_accuracy if manifest.library else None
        accuracy = manifest.accuracy.test if share is None else share
        kind = formats.pop() if len(formats) == 1 else "mixed"
        yield TrainedNetwork(group, manifest.id, kind, artifact, accuracy, manifest.accuracy.n)


def _linked(run: Run, manifest: Manifest, kernels: Runtime) -> Artifact:
    candidate = run.family.space().candidate(np.array(manifest.genes, np.int16))
    (artifact,) = kernels.build([Job(run.family.workload(candidate), bytes)])
    if isinstance(artifact, str):
        raise RuntimeError(f"{manifest.id}: {artifact}")
    return artifact


def fixed_networks(run: Run, folder: Path) -> Iterator[TrainedNetwork]:
    """Yield the networks that `joint_fixed.py` left in a folder, in fp32 and int8."""
    for network in trained_networks(run, folder):
        for fmt in network.family.formats:
            yield _of_graph(run, ALONE, network.name, fmt, network.quantized(run, fmt))


def reference_network(run: Run) -> TrainedNetwork:
    """Return the largest network of the shipped `cifar-mbconv` in fp32."""
    task = run.images
    family = load_family(SHIPPED, in_channels=task.channels, classes=len(task.classes))
    net = family.supernet(rng=np.random.default_rng(0)).eval()
    net.load_state_dict(dict(load_weights(shipped(SHIPPED)).tensors))
    candidate = family.extreme("largest", FP32)
    graph = build_network(family, net, candidate, task, NetworkBuilder(run).calibration, sums=run.sums)
    return _of_graph(run, REFERENCE, f"{SHIPPED} largest", FP32, graph)


def _of_graph(run: Run, group: str, name: str, fmt: str, graph: QuantizedGraph) -> TrainedNetwork:
    model = emit(graph)
    accuracy = file_metric(model, run.task.test, run.task)
    return TrainedNetwork(group, name, fmt, Artifact(model), accuracy, len(run.images.test))
