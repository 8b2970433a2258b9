"""Documents of a run with damage of any kind, of their bytes and of what they say: used, or refused in one
line.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.documents import read_document, write_document
from hw_profiles.files import write_json
from hw_profiles.profiles.compare import compare
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from nas.export.selection import pick
from nas.report.device_figures import calibration_plot, speedup_plot
from nas.report.page import render
from nas.report.run_files import read_run
from nas.run.documents import (
    Environment,
    SamplesFile,
    SensitivityFile,
    StageDone,
    State,
    StoppingDecision,
    Timings,
    genomes_of,
)
from nas.run.front_document import read_front
from nas.run.reporting import QUIET
from nas.run.run import find_run
from nas.stages.quality import print_quality
from nas.stages.sample import in_words
from predictors.assessment.learning_curve import CurvePoint
from supernet.families.family import load_family
from supernet.families.staged import Stage
from supernet.families.staged_file import StagedSpace, load_space, save_space
from tests.fuzz.mutations import (
    Attempt,
    attempt,
    damaged_bytes,
    damaged_documents,
    deep_document,
    require_sound,
    try_out,
)
from tests.nas.report.conftest import entry, write_run

COUNT = 1_000
COMMANDS = 8  # of each kind, through whole commands
FAMILY = load_family("digits-mbconv", in_channels=1, classes=10)
SPACE = FAMILY.space()


def use_front(folder: Path) -> None:
    front = read_front(folder / "front.json", SPACE)
    for picks in ((), ("knee",), ("all",), ("fastest>=50%",)):
        pick(front, picks, 2)


def use_report(folder: Path) -> None:
    render(read_run(folder))


def use_quality(folder: Path) -> None:
    print_quality(find_run(folder), QUIET)


def use_samples(folder: Path) -> None:
    samples = read_document(folder / "samples.json", SamplesFile)
    genomes_of(folder, samples.genes, SPACE)
    for decision in samples.kinds:
        in_words(decision)


def use_profile(folder: Path) -> None:
    profile = load_profile(folder / "profiles" / "made-up-cpu.json")
    for layer in profile.table:
        assert profile.cost_s(layer) is not None
    for shown in (speedup_plot(profile), calibration_plot(profile), compare(profile, profile).to_json()):
        json.dumps(shown, default=str)
    corner = FAMILY.workload(FAMILY.extremes()["smallest/fp32"])
    if all(layer in profile for layer in corner.layers):
        profile.predict_s(corner)
    save_profile(profile, folder / "again.json")


def use_space(folder: Path) -> None:
    family = load_space(folder / "space.json").family(in_channels=1, classes=2)
    family.space().sample(2, rng=np.random.default_rng(0))


def reads(kind: type, name: str) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        read_document(folder / name, kind)

    return use


USES: dict[str, tuple[Callable[[Path], None], ...]] = {
    "front.json": (use_front, use_report),
    "quality.json": (use_quality,),
    "samples.json": (use_samples,),
    "env.json": (reads(Environment, "env.json"),),
    "timings.json": (reads(Timings, "timings.json"),),
    "state.json": (reads(State, "state.json"),),
    "damage.json": (reads(SensitivityFile, "damage.json"),),
    "space.json": (use_space,),
    "profiles/made-up-cpu.json": (use_profile,),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, device_profile: DeviceProfile) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run"))
    save_profile(device_profile, folder / "profiles" / "made-up-cpu.json")
    front, rng = json.loads((folder / "front.json").read_text()), np.random.default_rng(0)
    front["reference"] = entry(FAMILY, FAMILY.extremes()["largest/fp32"], rng, layers=True)
    front["candidates"] = front["candidates"][:5]
    front["evaluated"] = [network for network in front["evaluated"] if network["measured"]][:5]
    write_json(folder / "front.json", front)
    curve = (CurvePoint(40, 0.6, 0.02), CurvePoint(80, 0.7, 0.01))
    decisions = (
        StoppingDecision("fp32", 80, 200, "the most", 0.01, curve),
        StoppingDecision("quantized", 3, 3, "all"),
    )
    genes = tuple(tuple(row) for row in SPACE.sample(9, rng=rng).tolist())
    write_document(folder / "samples.json", SamplesFile("0", "uncertainty", decisions, genes))
    write_document(folder / "state.json", State({"profile": StageDone("0", 1.0), "train": StageDone("1", 2)}))
    write_document(folder / "damage.json", SensitivityFile("0", {"s0.b0.expand": (0.0, 0.2, 0.3)}))
    stages = (Stage("fused", (8, 16), 2, (1, 2)), Stage("inverted", (16,), 2, (1,), (3,)))
    save_space(folder / "space.json", StagedSpace("made up", (14, 28), 8, 1, 32, stages), {})
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_a_damaged_document_is_used_or_refused_in_one_line(folder: Path, name: str) -> None:
    path, whole = folder / name, (folder / name).read_bytes()
    document = json.loads(whole)
    document.pop("checksum", None)  # else nothing but the checksum would be seen
    rng = np.random.default_rng(31)

    def attempts() -> Iterator[Attempt]:
        text = json.dumps(document).encode()
        for i, mutation in enumerate(
            (
                *damaged_bytes(text, count=COUNT // 2, rng=rng),
                *damaged_documents(document, count=COUNT // 2, rng=rng),
            )
        ):
            path.write_bytes(mutation.data)
            for use in USES[name] if i % 5 == 0 else USES[name][:1]:
                yield try_out(mutation.how, lambda use=use: use(folder))
        path.write_bytes(deep_document(document["schema"]))
        yield try_out("deep", lambda: USES[name][0](folder))

    require_sound(attempts())


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_commands_say_in_one_line_what_is_damaged(folder: Path, name: str) -> None:
    path, document = folder / name, json.loads((folder / name).read_bytes())

    def attempts() -> Iterator[Attempt]:
        for mutation in damaged_documents(document, count=COMMANDS, rng=np.random.default_rng(32)):
            path.write_bytes(mutation.data)
            for word in ("report", "export"):
                yield attempt(mutation.how, [word, "-o", str(folder)])

    require_sound(attempts())


@pytest.mark.slow
def test_any_changed_bit_of_a_saved_profile_is_noticed(folder: Path) -> None:
    path = folder / "profiles" / "made-up-cpu.json"
    whole = path.read_bytes()

    def attempts() -> Iterator[Attempt]:
        for mutation in damaged_bytes(whole, count=COUNT, rng=np.random.default_rng(33)):
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, lambda: load_profile(path))

    counts = require_sound(attempts())
    assert counts["worked"] <= COUNT // 100  # zeros for zeros, a cut of the last newline
