"""Images in which nothing is to be learned, for what does not depend on learning; exported networks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.export.check import Input, expected_answers
from nas.export.package import file_entries, write_network
from nas.export.to_onnx import emit
from nas.export.verify import file_accuracy
from supernet.network import Network
from supernet.train.data import Dataset

WriteImages = Callable[..., Path]
WriteExported = Callable[..., Path]


@pytest.fixture(scope="session")
def write_images() -> WriteImages:
    """Writes a folder of noisy images, twelve of each class: a pass is one step."""

    def write(folder: Path, classes: tuple[str, ...], *, colour: bool = False, each: int = 12) -> Path:
        shape = (8, 8, 3) if colour else (8, 8)
        for label, name in enumerate(classes):
            (folder / "train" / name).mkdir(parents=True)
            for i in range(each):
                pixels = np.random.default_rng([label, i]).integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / "train" / name / f"{i}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def write_exported() -> WriteExported:
    """Writes the folder of a network as `nas export` does, with other files and entries of the manifest."""

    def write(
        folder: Path,
        network: Network,
        image: Input,
        data: Dataset,
        *,
        files: Mapping[str, bytes] | None = None,
        **more: Any,
    ) -> Path:
        model = emit(network, metadata={"trilobit.id": "abc123"})
        every = {"model.onnx": model, **(files or {})}
        manifest = {
            "schema": "export/2",
            "id": "abc123",
            "space": "digits-mbconv",
            "genes": [0],
            "policy": {"stem": "int8"},
            "files": file_entries(every),
            "opset": 21,
            "data": "digits",
            "seed": 0,
            "classes": list(data.classes),
            "input": image.to_json(),
            "device": {"name": "ort-cpu-1t", "cpu": "another CPU", "threads": 1, "batch": 1},
            "accuracy": {"test": file_accuracy(model, data.test, data), "n": len(data.test)},
            "finetuning": None,
            "latency": {
                "median_s": 1e-5,
                "iqr_s": 1e-7,
                "replayed": False,
                "through": "model.onnx",
                "ratios": {},
            },
            "answers": expected_answers(network, image),
            "versions": {},
            **more,
        }
        write_network(folder, every, manifest)
        return folder

    return write
