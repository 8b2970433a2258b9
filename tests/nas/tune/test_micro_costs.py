"""What a tune weighs answers against on devices with and without times, and what files need of memory."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.info import DeviceInfo
from nas.evaluation.micro import TOO_LARGE
from nas.tune.evaluation.quality import PolicyQuality
from nas.tune.policies.arena_model import Alive, fit_arena
from nas.tune.policies.costs import TunedCosts, costs_of
from nas.tune.policies.space import policy_space
from nas.tune.result.judge import Judged, Verdict, front_of
from nas.tune.search.limits import resolve_limits
from nas.tune.setup.files import kernel_of
from nas.tune.timing.turns import TimedFile
from predictors.latency.policy_terms import PolicyTerms
from supernet.imported.import_onnx import import_onnx
from supernet.tasks.metric import KL
from tests.nas.emit.small_networks import Net

MEMORY = TunedCosts(("arena", "flash"))


class Counting:
    """A runtime that counts memory."""

    def require_counter(self) -> None:
        """It is there."""

    def memory_bytes(self, content: bytes) -> tuple[int, int]:
        return len(content), 2 * len(content)


def device(figures: Any = "none", runtime: Any = None) -> Any:
    info = DeviceInfo("board", "", "engine", "1", "kernels", figures=figures)
    return SimpleNamespace(describe=lambda: info, runtime=runtime)


@pytest.mark.parametrize(
    ("figures", "written", "limited", "expected"),
    [
        ("measured", (), ("kl",), TunedCosts()),
        ("measured", (), ("flash", "size"), TunedCosts(limited=("flash",))),
        ("none", (), (), MEMORY),
        ("none", ("accuracy", "flash"), ("arena",), TunedCosts(("flash",), ("arena",))),
    ],
)
def test_costs_follow_from_the_device_and_what_is_asked(
    figures: Any, written: tuple[str, ...], limited: tuple[str, ...], expected: TunedCosts
) -> None:
    assert costs_of(device(figures, Counting()), written, limited) == expected


@pytest.mark.parametrize(
    ("counts", "written", "limited", "said"),
    [
        (True, ("latency", "arena"), (), "board has no latency"),
        (True, (), ("latency",), "board has no latency"),
        (True, ("kl",), (), "name a cost too, of latency, size, arena, flash"),
        (False, (), (), "board counts no arena or flash: take --device tflite-micro"),
    ],
)
def test_costs_that_a_device_does_not_have_are_refused(
    counts: bool, written: tuple[str, ...], limited: tuple[str, ...], said: str
) -> None:
    with pytest.raises(TrilobitError, match=said):
        costs_of(device(runtime=Counting() if counts else None), written, limited)


def judged(name: str, kl: float, arena: float, flash: float) -> Judged:
    quality = PolicyQuality({"kl": kl}, {}, flash, memory={"arena": arena, "flash": flash})
    return Judged(name, TimedFile(), quality, quality, flash)


def test_a_front_without_times_is_of_memory() -> None:
    references = (judged("fp32", 0.0, 100.0, 100.0), judged("recipe", 0.1, 30.0, 25.0))
    files = (
        judged("good", 0.01, 60.0, 40.0),
        judged("lean", 0.05, 30.0, 30.0),
        judged("beaten", 0.2, 40.0, 26.0),  # more of both and worse than the recipe
        judged("small", 0.05, 70.0, 20.0),  # more arena than the recipe, less flash
        judged("too large", 0.0, TOO_LARGE, 20.0),
    )
    verdict = Verdict(np.zeros((len(files), 1), np.int16), files, references)
    whole = {"arena": 100.0, "flash": 100.0}
    for limits, expected in (({}, ["lean", "good", "small"]), ({"arena": "65%"}, ["lean", "good"])):
        front = front_of(verdict, KL, resolve_limits(limits, [KL], whole), MEMORY)
        assert [files[i].name for i in front] == expected


def test_tensors_that_are_alive_at_once_are_codes_where_a_unit_gives_them() -> None:
    net = Net(1)
    first = net.op("Relu", net.conv("image", 3, 4))
    second = net.op("Relu", net.conv(first, 4, 4))
    model = import_onnx(net.finish({"image": (1, 3, 8, 8)}, {net.conv(second, 4, 2): (1, 2, 8, 8)}))
    names = [unit.name for unit in model.units]
    terms = PolicyTerms.of(policy_space(model, dict.fromkeys(names, ("int8",))), model, kernel_of)
    genomes = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]], np.int16)
    channels = [
        4 * 4 + 4 * 4,  # both maps of real numbers
        3 * 4 + 3,  # the image and its codes
        3 * 4 + 4 * 4,  # the image and the first map; that and its codes are fewer
        4 * 4 + 4 * 4,  # in the middle all is real
    ]
    expected = 64.0 * np.array(channels)
    assert Alive(terms)(genomes).tolist() == expected.tolist()
    kept = 1000.0 + 100.0 * genomes.sum(axis=1)
    fitted = fit_arena(terms, np.tile(genomes, (4, 1)), np.tile(expected + kept, 4))
    assert fitted(genomes) == pytest.approx(expected + kept, rel=0.02)
