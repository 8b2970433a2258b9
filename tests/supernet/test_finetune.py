"""Fine-tuning makes a network better in its own formats, resumes exactly, and exports what it simulated."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from nas.checks.parity import check_parity
from nas.emit.to_onnx import emit
from supernet.data.images import Images
from supernet.families.family import Family, load_family
from supernet.families.mbconv import MBConvFamily, Stage
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train import placement
from supernet.train.checkpoint import load_checkpoint
from supernet.train.finetune import (
    FineTuning,
    FineTuningContext,
    finetune,
    prepare_finetuning,
    seconds_for_answers,
    seconds_per_step,
    steps_left,
    tuned_network,
    with_answers,
)
from supernet.train.loop import TrainConfig, load_supernet, train
from supernet.train.quantized import first_quantizers
from supernet.train.student import Student

RECIPE = TrainConfig(epochs=4, batch_size=32, random_subnets=0, pad=1)
CONFIG = FineTuning(epochs=2, learning_rate=2e-3, checkpoint_s=0.0)


@pytest.fixture(scope="module")
def family() -> Family:
    """Two stages at the resolution that digits have."""
    return MBConvFamily(
        name="tiny",
        resolutions=(8,),
        stem_width=8,
        stages=(Stage(8, 1, (1,), (16, 24), (3,)), Stage(16, 2, (1, 2), (32, 48), (3,))),
        head_width=32,
        in_channels=1,
        classes=10,
        formats=("fp32", "int4", "int8"),
        stem_stride=1,
    )


@pytest.fixture(scope="module")
def data() -> ImageClassification:
    """A third of the digits."""
    whole = load_images("digits", seed=0)
    parts = {
        name: Images(part.pixels[:n], part.labels[:n])
        for name, part, n in (("train", whole.train, 384), ("validation", whole.validation, 256))
    }
    return replace(whole, **parts)


@pytest.fixture(scope="module")
def context(
    family: Family, data: ImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> FineTuningContext:
    path = tmp_path_factory.mktemp("supernet") / "last.pt"
    list(train(family, data, RECIPE, path, seed=0))
    return prepare_finetuning(family, load_supernet(family, path), data, CONFIG, RECIPE, seed=0)


def candidate_of(family: Family, kind: str) -> Candidate:
    """The smallest architecture in one format, or in fp32 and int4 in turn."""
    corners = family.extremes()
    if kind != "mixed":
        return corners[f"smallest/{kind}"]
    genes, space = np.array(corners["smallest/fp32"].genes, np.int16), family.space()
    formats = [i for i, choice in enumerate(space.choices) if choice.kind == "precision"]
    genes[formats[::2]] = 1
    return space.candidate(space.canonical(genes[None])[0])


def short(context: FineTuningContext, images: int = 96) -> FineTuningContext:
    """The same on fewer images."""
    data = context.batches.task
    few = replace(data, train=Images(data.train.pixels[:images], data.train.labels[:images]))
    return replace(context, batches=replace(context.batches, task=few))


@pytest.mark.parametrize("kind", ["mixed", "fp32", "int8"])
@pytest.mark.slow
def test_it_gets_better_and_its_file_does_the_same(
    family: Family, data: ImageClassification, context: FineTuningContext, tmp_path: Path, kind: str
) -> None:
    candidate = candidate_of(family, kind)
    before = build_network(family, context.net, candidate, data, calibration_examples(data, seed=0))
    student = context.student(candidate)
    steps = list(finetune(context, student, tmp_path / "tuned.pt"))
    assert (steps[-1].step, steps[-1].steps) == (24, 24)
    tuned = tuned_network(context, student)
    gained = simulated_metric(tuned, data.validation, data) - simulated_metric(before, data.validation, data)
    assert gained > 0.02
    assert tuned.workload == before.workload
    model = emit(tuned, batch=1)
    assert len(model) == pytest.approx(len(emit(before, batch=1)), rel=0.01)
    check_parity(model, tuned, data.validation, data)


def scales(student: Student) -> list[torch.Tensor]:
    """Logarithms of the scales that it learns with."""
    return [] if student.quantizers is None else list(student.quantizers.parameters())


def test_only_narrow_formats_learn_with_scales(family: Family, context: FineTuningContext) -> None:
    counts = {
        kind: len(scales(context.student(candidate_of(family, kind))))
        for kind in ("fp32", "int8", "mixed", "int4")
    }
    assert counts["fp32"] == counts["int8"] == 0
    assert 0 < counts["mixed"] < counts["int4"]


def test_real_numbers_learn_by_the_recipe_at_a_part_of_its_rates(
    family: Family, context: FineTuningContext
) -> None:
    muon = replace(RECIPE, optimiser="muon", learning_rate=0.1, rest_rate=0.2, amp="off")
    quarter = replace(CONFIG, rate_share=0.25)
    knowing = replace(context, config=quarter, batches=replace(context.batches, config=muon))
    real, rounded = (knowing.settings(knowing.student(candidate_of(family, k))) for k in ("int8", "int4"))
    assert (real.optimiser, real.learning_rate, real.rest_rate) == ("muon", 0.1 / 4, 0.2 / 4)
    assert (rounded.optimiser, rounded.learning_rate) == ("adamw", CONFIG.learning_rate)


@pytest.mark.parametrize(("flags", "dense"), [({"amx_bf16"}, "bf16"), ({"avx2"}, "off")])
def test_bf16_is_for_dense_products_on_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, context: FineTuningContext, flags: set[str], dense: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(placement, "cpu_flags", lambda: flags)
    numbers = {}
    for name in ("cifar-pooled", "cifar-mbconv"):
        space = load_family(name, in_channels=3, classes=10)
        numbers[name] = CONFIG.in_real_numbers(RECIPE, space.workload(space.extreme("smallest"))).amp
    assert numbers == {"cifar-pooled": dense, "cifar-mbconv": "off"}
    asked = replace(RECIPE, amp="off")
    assert CONFIG.in_real_numbers(asked, space.workload(space.extreme("smallest"))).amp == "off"


def test_the_teacher_is_asked_once_about_each_example(context: FineTuningContext, tmp_path: Path) -> None:
    few, path = short(context), tmp_path / "teacher.pt"
    mirroring = replace(few, batches=replace(few.batches, config=replace(RECIPE, flip=True)))
    asked = {
        name: with_answers(given, tmp_path / name).answers
        for name, given in (("plain", few), ("mirrored", mirroring))
    }
    images = few.batches.task.inputs(few.batches.task.train, 8)
    one_way, other = (torch.softmax(context.teacher.logits(x), 1) for x in (images, images.flip(-1)))
    for name, expected in (("plain", one_way), ("mirrored", (one_way + other) / 2)):
        answers = asked[name]
        assert answers is not None
        torch.testing.assert_close(answers.exp(), expected)
    told = list[float]()
    first = with_answers(few, path, lambda done, note: told.append(done))
    assert told == [96]
    again = with_answers(few, path, lambda done, note: told.append(done))
    assert told == [96]
    assert first.answers is not None
    assert again.answers is not None
    assert torch.equal(again.answers, first.answers)
    student = few.student(candidate_of(few.family, "int8"))
    assert [p.step for p in finetune(first, student, tmp_path / "tuned.pt")] == [1, 2, 3, 4, 5, 6]


def test_what_the_teacher_says_of_mixtures_cannot_be_kept(context: FineTuningContext, tmp_path: Path) -> None:
    mixing = replace(context, batches=replace(context.batches, config=replace(RECIPE, mixup=0.2)))
    assert with_answers(mixing, tmp_path / "teacher.pt").answers is None
    assert seconds_for_answers(mixing) == 0
    assert not (tmp_path / "teacher.pt").exists()
    assert 0 < seconds_for_answers(context) < 60


@pytest.mark.parametrize("optimiser", ["muon", "sgd"])
def test_every_optimiser_trains_a_network_by_itself(
    family: Family, context: FineTuningContext, tmp_path: Path, optimiser: str
) -> None:
    recipe = replace(RECIPE, optimiser=optimiser, learning_rate=0.05, rest_rate=0.05, bias_factor=2.0)
    few = short(context)
    few = replace(few, batches=replace(few.batches, config=recipe))
    student = few.student(candidate_of(family, "int8"))
    losses = [progress.loss for progress in finetune(few, student, tmp_path / "tuned.pt")]
    assert losses[-1] < losses[0]


def test_scales_of_the_supernet_are_learned_on_whatever_the_format(
    family: Family, data: ImageClassification, context: FineTuningContext
) -> None:
    knowing = replace(context, learned=first_quantizers(family, context.net, data, images=64, seed=0))
    assert scales(knowing.student(candidate_of(family, "int8")))


def test_the_supernet_is_only_read(family: Family, context: FineTuningContext, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in context.net.state_dict().items()}
    student = context.student(candidate_of(family, "int4"))
    list(finetune(short(context), student, tmp_path / "tuned.pt"))
    tuned_network(context, student)
    assert all(torch.equal(before[name], tensor) for name, tensor in context.net.state_dict().items())


def test_learned_scales_of_the_supernet_are_where_it_starts(
    family: Family, data: ImageClassification, context: FineTuningContext, tmp_path: Path
) -> None:
    learned = first_quantizers(family, context.net, data, images=64, seed=0)
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.add_(0.1)  # unlike any that would be found here
    before = {name: tensor.clone() for name, tensor in learned.state_dict().items()}
    knowing = replace(short(context), learned=learned)
    student = knowing.student(candidate_of(family, "int4"))
    assert student.quantizers is not None
    assert all(torch.equal(before[name], t) for name, t in student.quantizers.state_dict().items())
    list(finetune(knowing, student, tmp_path / "tuned.pt"))
    assert not all(torch.equal(before[name], t) for name, t in student.quantizers.state_dict().items())
    assert all(torch.equal(before[name], tensor) for name, tensor in learned.state_dict().items())
    tuned = tuned_network(knowing, student)
    check_parity(emit(tuned, batch=1), tuned, data.validation, data)


@pytest.mark.parametrize("kind", ["mixed", "int8"])
def test_resumed_it_ends_with_the_same_numbers(
    family: Family, context: FineTuningContext, tmp_path: Path, kind: str
) -> None:
    candidate, few = candidate_of(family, kind), short(context)
    whole, resumed = few.student(candidate), few.student(candidate)
    steps = list(finetune(few, whole, tmp_path / "whole.pt"))
    list(islice(finetune(few, few.student(candidate), tmp_path / "resumed.pt"), 4))  # killed after four steps
    assert steps_left(few, few.student(candidate), tmp_path / "resumed.pt") == 2
    rest = list(finetune(few, resumed, tmp_path / "resumed.pt"))
    assert [one.loss for one in rest] == [one.loss for one in steps[4:]]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_what_is_done_is_not_done_again(family: Family, context: FineTuningContext, tmp_path: Path) -> None:
    candidate, few, path = candidate_of(family, "mixed"), short(context), tmp_path / "tuned.pt"
    first = few.student(candidate)
    list(finetune(few, first, path))
    written = path.stat().st_mtime_ns
    again = few.student(candidate)
    [only] = finetune(few, again, path)
    assert (only.step, only.steps, path.stat().st_mtime_ns) == (6, 6, written)
    found, expected = again.subnet.state_dict(), first.subnet.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert "optimiser" not in load_checkpoint(path, fingerprint=family.space().fingerprint)  # nor is it kept


@pytest.mark.parametrize("change", ["epochs", "rate", "candidate", "images"])
def test_another_start_begins_anew(
    family: Family, context: FineTuningContext, tmp_path: Path, change: str
) -> None:
    candidate, few, path = candidate_of(family, "mixed"), short(context), tmp_path / "tuned.pt"
    list(finetune(few, few.student(candidate), path))
    other = {
        "epochs": replace(few, config=replace(CONFIG, epochs=1)),
        "rate": replace(few, config=replace(CONFIG, learning_rate=1e-3)),
        "images": short(context, 64),
    }.get(change, few)
    student = other.student(candidate_of(family, "int4") if change == "candidate" else candidate)
    assert steps_left(other, student, path) == other.steps
    assert len(list(finetune(other, student, path))) == other.steps
    assert steps_left(other, other.student(candidate), path) == (other.steps if change == "candidate" else 0)


def test_a_damaged_checkpoint_is_named(family: Family, context: FineTuningContext, tmp_path: Path) -> None:
    path = tmp_path / "tuned.pt"
    path.write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(TrilobitError, match="not a checkpoint this version can read"):
        next(finetune(context, context.student(candidate_of(family, "fp32")), path))


def test_the_cost_is_known_beforehand(family: Family, context: FineTuningContext) -> None:
    assert 0 < seconds_per_step(short(context), candidate_of(family, "mixed")) < 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"finetune.epochs must be a whole number from 1 to 10,000, got 0"),
        ({"learning_rate": -1.0}, r"finetune.learning_rate must be a number above 0"),
        ({"teacher": 2.0}, r"finetune.teacher must be a number from 0 to 1, got 2.0"),
    ],
)
def test_what_cannot_train_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        FineTuning(**settings)
