"""A small classifier and its images, as a tune takes them: for runtimes with files of their own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tomli_w

from nas.cli.main import main
from tests.e2e.test_tune import CLASSES, SAMPLES, SMALL
from tests.nas.emit.small_networks import Net

Shape = Sequence[int | str]


def small_tune(folder: Path, *, image: Shape, scores: Shape) -> list[str]:
    """Write them, and return the command that tunes it in a folder `tuned`."""
    net, rng = Net(1), np.random.default_rng(0)
    x = net.relu6(net.conv("image", 3, 8))
    y = net.relu6(net.conv(x, 8, 16, strides=[2, 2]))
    pooled = net.op("ReduceMean", y, net.constant(np.array([2, 3])), keepdims=0)
    given = net.op("Softmax", net.linear(pooled, 16, CLASSES))
    model, data, config = (folder / name for name in ("net.onnx", "images.npz", "small.toml"))
    model.write_bytes(net.finish({"image": tuple(image)}, {given: tuple(scores)}))
    images = rng.normal(rng.normal(0, 2, (SAMPLES, 3, 1, 1)), 1, (SAMPLES, 3, 12, 12))
    np.savez(data, image=images.astype(np.float32))
    config.write_text(tomli_w.dumps({**SMALL, "model": {}}))
    return ["tune", str(model), "--data", str(data), "-o", str(folder / "tuned"), "--config", str(config)]


def tune_small(folder: Path, *words: str, image: Shape, scores: Shape) -> Path:
    """Tune it with further words of the command, and return the folder of that."""
    assert main([*small_tune(folder, image=image, scores=scores), *words]) == 0
    return folder / "tuned"
