"""A thousand damaged files of every kind that an exported network has: each works or is refused in one line.
Hashes are computed anew where a damaged file would not be looked at otherwise.
"""

import contextlib
import json
import operator
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import map_layer
from nas.checks.check import Input
from nas.emit.to_onnx import random_network
from nas.export.seal import claims_of, digest_of
from supernet.tasks.loading import load_images
from tests.fuzz.mutations import Attempt, Mutation, attempt, damaged_bytes, damaged_documents, require_sound
from tests.nas.exported import copied, forged, write_exported

pytestmark = pytest.mark.slow
COUNT = 1000
LIBRARY = """
float weights[4] = {1, 2, 3, 4};
int trilobit_run(const float* image, float* logits)
{
    for (int i = 0; i < 10; i++) logits[i] = image[i % 4] * weights[i % 4];
    return 0;
}
"""
QUICK = ("--seconds", "0.001")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with a library that is quickly compiled."""
    data, formats = load_images("digits", seed=0), {"weight_format": "int8", "activation_format": "int8"}
    net = WorkloadBuilder((1, 8, 8))
    x = net.add("pool", map_layer("pool", (1, 8, 8), 1, activation_format="int8"), -1)
    net.add("classifier", map_layer("linear", (1, 1, 1), 10, **formats), x)
    network = random_network(net.build(), rng=np.random.default_rng(0))
    folder = tmp_path_factory.mktemp("run")
    (folder / "library.c").write_text(LIBRARY)
    command = ["cc", "-shared", "-fPIC", "-O1", "library.c", "-o", "model.so"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    answers = {"images": 1, "labels": [0], "largest_logits": [0.0]}
    return write_exported(
        folder / "export",
        network,
        Input((8, 8, 1), data.mean, data.std),
        data,
        files={"model.so": (folder / "model.so").read_bytes()},
        library={"target": "host", "integer_only": False, "answers": answers},
    )


def attempts(
    exported: Path, folder: Path, name: str, mutations: Iterator[Mutation], *, same: Callable[[bytes], bool]
) -> Iterator[Attempt]:
    """Yield what `nas verify` makes of a folder with one file damaged, all else whole; what it does not
    notice must be the `same`.
    """
    copied(exported, folder)
    for mutation in mutations:
        (folder / name).write_bytes(mutation.data)
        outcome = attempt(mutation.how, ["verify", str(folder), "--no-latency"])
        unnoticed = outcome.code == 0 and not same(mutation.data)
        yield Attempt(outcome.how, None, "not noticed") if unnoticed else outcome


def test_manifests(exported: Path, tmp_path: Path) -> None:
    whole, rng = (exported / "manifest.json").read_bytes(), np.random.default_rng(0)
    damaged = damaged_bytes(whole, count=COUNT, rng=rng)
    document = json.loads(whole)

    def same(data: bytes) -> bool:
        return bool(json.loads(data) == document)  # white space is another

    require_sound(attempts(exported, tmp_path, "manifest.json", damaged, same=same))


def resealed(mutations: Iterator[Mutation]) -> Iterator[Mutation]:
    """Yield damaged manifests whose digest fits."""
    for mutation in mutations:
        document = json.loads(mutation.data)
        with contextlib.suppress(ValueError):  # a number beyond all numbers
            document["digest"] = digest_of(document)
        yield Mutation(mutation.how, json.dumps(document).encode(errors="replace"))


def test_manifests_whose_digest_fits(exported: Path, tmp_path: Path) -> None:
    document, rng = json.loads((exported / "manifest.json").read_text()), np.random.default_rng(1)
    damaged = resealed(damaged_documents(document, count=COUNT, rng=rng))
    claims = claims_of(document)  # which the ONNX file knows

    def same(data: bytes) -> bool:
        return claims_of(json.loads(data)) == claims

    require_sound(attempts(exported, tmp_path, "manifest.json", damaged, same=same))


def test_cards(exported: Path, tmp_path: Path) -> None:
    whole, rng = (exported / "README.md").read_bytes(), np.random.default_rng(2)
    damaged = damaged_bytes(whole, count=COUNT, rng=rng)
    require_sound(attempts(exported, tmp_path, "README.md", damaged, same=partial(operator.eq, whole)))


def test_onnx_files(exported: Path, tmp_path: Path) -> None:
    """Every second as any file by `bench`, every second as a network of ours by `verify`."""
    whole, rng = (exported / "model.onnx").read_bytes(), np.random.default_rng(3)

    def tried() -> Iterator[Attempt]:
        for i, mutation in enumerate(damaged_bytes(whole, count=COUNT, rng=rng)):
            files = {"model.onnx": mutation.data}
            folder = forged(exported, tmp_path, files=files, stamp=False)
            words: list[Any] = ["verify", folder, "--no-latency"] if i % 2 else ["bench", folder, *QUICK]
            yield attempt(mutation.how, list(map(str, words)))

    require_sound(tried())


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_libraries(exported: Path, tmp_path: Path) -> None:
    whole, rng = (exported / "model.so").read_bytes(), np.random.default_rng(4)

    def tried() -> Iterator[Attempt]:
        for mutation in damaged_bytes(whole, count=COUNT, rng=rng):
            folder = forged(exported, tmp_path, files={"model.so": mutation.data}, stamp=False)
            yield attempt(mutation.how, ["bench", str(folder / "model.so"), "--run-library", *QUICK])

    require_sound(tried())
