"""The whole recipe resumes exactly; stopping, teachers, mixed precision and watching do what they say."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family
from supernet.tasks import image_classification
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.train.batches import Batches
from supernet.train.checkpoint import load_checkpoint, trained_weights
from supernet.train.config import TrainConfig
from supernet.train.loop import load_supernet, start, train
from supernet.train.parallel import World
from supernet.train.periodic_validation import validation_metrics
from supernet.train.teacher import load_teacher

# everything that has a state, or draws
EVERYTHING = TrainConfig(
    epochs=5,
    batch_size=16,
    accumulate=2,
    optimiser="sgd",
    learning_rate=0.05,
    ema=0.9,
    schedule="shrinking",
    random_subnets=1,
    flip=True,
    cutout=8,
    mixup=0.2,
    randaugment=9,
    checkpoint_s=0.0,
)
# the rest of it; three steps a pass, of which the first two have the largest network alone
FAST = TrainConfig(
    epochs=2,
    batch_size=16,
    initial="identity",
    whitening=True,
    stem_epochs=1.0,
    optimiser="muon",
    learning_rate=0.2,
    bias_factor=8.0,
    decay="linear",
    warmup=0.2,
    ema=0.7,
    ema_from=0.5,
    schedule="alternating",
    random_subnets=1,
    alone=0.3,
    first_resolution=10,
    full_resolution_at=0.6,
    smoothing=0.2,
    flip=True,
    alternate=True,
    cutout=4,
    checkpoint_s=0.0,
)
STEPS = 5
QUICK = TrainConfig(epochs=1, batch_size=16, random_subnets=0, checkpoint_s=0.0)


@pytest.fixture(scope="module")
def family(small_family: Family) -> Family:
    return small_family


def state_of(path: Path, family: Family) -> dict[str, Any]:
    state = load_checkpoint(path, fingerprint=family.space().fingerprint)
    state.pop("seconds")
    return state


def assert_same(actual: Any, expected: Any) -> None:
    """Bitwise."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected)
    elif isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, list):
        for actual_item, expected_item in zip(actual, expected, strict=True):
            assert_same(actual_item, expected_item)
    else:
        assert actual == expected


@pytest.fixture(scope="module")
def whole(
    family: Family, few_digits: ImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The state that training with everything ends with."""
    path = tmp_path_factory.mktemp("whole") / "last.pt"
    assert len(list(train(family, few_digits, EVERYTHING, path, seed=1))) == STEPS
    return state_of(path, family)


@pytest.mark.parametrize("killed", [1, 4])
def test_everything_resumes_exactly(
    family: Family, few_digits: ImageClassification, whole: dict[str, Any], tmp_path: Path, killed: int
) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, few_digits, EVERYTHING, path, seed=1), killed))
    assert state_of(path, family)["step"] == killed
    assert len(list(train(family, few_digits, EVERYTHING, path, seed=1))) == STEPS - killed
    assert_same(state_of(path, family), whole)
    assert list(whole["ema"]) != list(whole["model"])


def test_the_fast_recipe_resumes_exactly(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "last.pt"
    assert len(list(train(family, few_digits, FAST, whole, seed=1))) == 6
    expected = state_of(whole, family)
    for _ in range(6):  # killed after every step
        next(train(family, few_digits, FAST, path, seed=1))
    assert_same(state_of(path, family), expected)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("whitening", False),
        ("bias_factor", 1.0),
        ("decay", "cosine"),
        ("alone", 0.0),
        ("first_resolution", 0),
        ("alternate", False),
        ("ema_from", 0.0),
        ("stem_epochs", 2.0),
        ("filter_momentum", 0.0),
        ("rest_rate", 0.5),
    ],
)
def test_every_part_of_the_fast_recipe_matters(
    family: Family, few_digits: ImageClassification, tmp_path: Path, name: str, off: Any
) -> None:
    two = replace(few_digits, train=few_digits.train[:16])  # steps
    results = []
    for config in (FAST, replace(FAST, **{name: off})):
        path = tmp_path / f"{len(results)}.pt"
        list(train(family, two, replace(config, epochs=4), path, seed=1))
        results.append(load_supernet(family, path).state_dict())
    assert any(not torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_averaging_begins_late(family: Family, few_digits: ImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for progress in train(family, few_digits, replace(FAST, ema=0.999), path, seed=1):
        state = state_of(path, family)
        assert int(state["ema"]["n_averaged"]) == max(0, progress.step - 3)
        used, last = trained_weights(state)["head.weight"], state["model"]["head.weight"]
        assert torch.equal(used, last) == (progress.step <= 4)  # it begins with the weights of then


def test_a_whitened_stem_is_left_alone(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    path, stems = tmp_path / "last.pt", []
    for _ in train(family, few_digits, FAST, path, seed=1):
        model = state_of(path, family)["model"]
        stems.append([model["stem.weight"], model["stem.norm.weight"], model["stem.norm.bias"]])
    assert all(torch.equal(filters, stems[0][0]) for filters, _, _ in stems)
    assert not torch.equal(stems[1][2], stems[2][2])
    assert_same(stems[3:], [stems[2]] * 3)  # its norm only in the first of two passes


def test_every_part_of_the_recipe_matters(
    family: Family, few_digits: ImageClassification, whole: dict[str, Any], tmp_path: Path
) -> None:
    first = whole["losses"][0]
    for name, off in (("flip", False), ("cutout", 0), ("mixup", 0.0), ("randaugment", 0), ("accumulate", 1)):
        config = replace(EVERYTHING, **{name: off})
        loss = next(train(family, few_digits, config, tmp_path / f"{name}.pt", seed=1)).loss
        assert loss != first, name


def test_averaged_weights_are_used(family: Family, few_digits: ImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    list(train(family, few_digits, replace(QUICK, ema=0.5), path, seed=1))
    state = state_of(path, family)
    net = load_supernet(family, path).state_dict()
    assert all(torch.equal(net[name], state["ema"][f"module.{name}"]) for name in net)
    assert not all(torch.equal(net[name], state["model"][name]) for name in net)


# -- stopping -----------------------------------------------------------------------------------------


def stop_in(step: int) -> Callable[[], bool]:
    asked = iter(range(1, 1000))
    return lambda: next(asked) == step


def test_stopping_saves_what_was_computed(
    family: Family, few_digits: ImageClassification, whole: dict[str, Any], tmp_path: Path
) -> None:
    path, config = tmp_path / "last.pt", replace(EVERYTHING, checkpoint_s=1e9)
    steps = list(train(family, few_digits, config, path, seed=1, stop=stop_in(3)))
    assert [progress.step for progress in steps] == [1, 2, 3]
    assert state_of(path, family)["step"] == 3
    list(train(family, few_digits, config, path, seed=1))
    assert_same(state_of(path, family), whole)


# -- what does not decide the result ------------------------------------------------------------------


def test_settings_of_the_host_may_change(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, few_digits, QUICK, path, seed=1), 2))
    moved = replace(QUICK, device="cpu", amp="off", evaluate_every=1, checkpoint_s=9.0, threads=3)
    assert next(train(family, few_digits, moved, path, seed=1)).step == 3


def test_a_checkpoint_from_before_these_settings_goes_on(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, few_digits, QUICK, path, seed=1), 2))
    state = torch.load(path, weights_only=True)
    for name in ("randaugment", "teacher", "ema", "mixup", "accumulate", "init"):
        del state["config"][name]
    torch.save(state, path)
    assert next(train(family, few_digits, QUICK, path, seed=1)).step == 3


def test_the_refusal_names_the_setting(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    next(train(family, few_digits, QUICK, path, seed=1))
    other = replace(QUICK, accumulate=2, mixup=0.1)
    with pytest.raises(TrilobitError, match=r"\(accumulate x processes 1, not 2; mixup 0.0, not 0.1\)"):
        next(train(family, few_digits, other, path, seed=1))


# -- mirrored images ----------------------------------------------------------------------------------


def test_in_every_second_epoch_the_other_half_is_mirrored(few_digits: ImageClassification) -> None:
    config = TrainConfig(batch_size=16, pad=0, flip=True, alternate=True)
    batches = Batches(few_digits, config, 1, World(), torch.device("cpu"))
    plain = few_digits.inputs(few_digits.train, few_digits.train.pixels.shape[1])
    sides = np.zeros((4, 48), bool)
    for step in range(12):
        ((images, _),) = list(batches.of(step))
        for row, image in zip(batches.rows(step), images, strict=True):
            mirrored = torch.equal(image, plain[row].flip(2))
            assert mirrored or torch.equal(image, plain[row])
            sides[step // 3, row] = mirrored
    assert 10 < sides[0].sum() < 38
    assert (sides[1] == ~sides[0]).all()
    assert (sides[2:] == sides[:2]).all()


# -- batches of several processes ---------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 3])
def test_two_processes_see_what_one_accumulates(few_digits: ImageClassification, step: int) -> None:
    config, device = replace(EVERYTHING, accumulate=1), torch.device("cpu")
    worlds = [World(rank, 2) for rank in (0, 1)]
    divided = [batch for w in worlds for batch in Batches(few_digits, config, 1, w, device).of(step)]
    alone = Batches(few_digits, EVERYTHING, 1, World(), device)
    assert_same([list(batch) for batch in divided], [list(batch) for batch in alone.of(step)])
    assert [Batches(few_digits, config, 1, w, device).steps_per_epoch for w in worlds] == [1, 1]
    assert alone.steps_per_epoch == 1


def test_too_many_processes_for_the_images_are_refused(few_digits: ImageClassification) -> None:
    three = replace(few_digits, train=few_digits.train[:3])
    with pytest.raises(TrilobitError, match="3 training examples cannot be divided among 4 processes"):
        Batches(three, QUICK, 0, World(0, 4), torch.device("cpu"))


# -- mixed precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_resumes_exactly(
    family: Family, few_digits: ImageClassification, tmp_path: Path, amp: str
) -> None:
    data = replace(few_digits, train=few_digits.train[:8])  # CPUs are slow at fp16
    full, mixed = replace(QUICK, batch_size=4), replace(QUICK, batch_size=4, amp=amp)
    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    losses = [progress.loss for progress in train(family, data, mixed, whole, seed=1)]
    next(train(family, data, mixed, killed, seed=1))
    assert len(list(train(family, data, mixed, killed, seed=1))) == 1
    state = state_of(whole, family)
    assert_same(state_of(killed, family), state)
    assert ("scaler" in state) == (amp == "fp16")  # only fp16 needs its gradients scaled
    loss = next(train(family, data, full, tmp_path / "full.pt", seed=1)).loss
    assert losses[0] != loss
    assert losses[0] == pytest.approx(loss, rel=0.02)  # bf16 has 8 bits


def test_an_overflow_of_fp16_skips_the_step(
    family: Family, few_digits: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        image_classification, "label_loss", lambda logits, targets, smoothing: logits.sum() * float("inf")
    )
    path = tmp_path / "last.pt"
    next(train(family, few_digits, replace(QUICK, batch_size=4, amp="fp16"), path, seed=1))
    state = state_of(path, family)
    fresh = start(family, few_digits, QUICK, seed=1).net.state_dict()
    assert all(torch.equal(state["model"][name], fresh[name]) for name in fresh)
    assert state["scaler"]["scale"] == torch.amp.GradScaler("cpu").get_scale() / 2


# -- a teacher ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(family: Family, few_digits: ImageClassification, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkpoint."""
    path = tmp_path_factory.mktemp("teacher") / "last.pt"
    config = replace(QUICK, schedule="largest", checkpoint_s=1e9)
    list(train(family, few_digits, config, path, seed=7))
    return path


def test_the_teacher_is_the_largest_network_of_its_checkpoint(
    family: Family, few_digits: ImageClassification, taught: Path
) -> None:
    batches = Batches(few_digits, QUICK, 1, World(), torch.device("cpu"))
    teacher = load_teacher(str(taught), family, batches)
    ((images, _),) = list(batches.of(0))
    logits = teacher.logits(images)
    assert logits.shape == (16, 10)
    assert not logits.requires_grad
    torch.testing.assert_close(teacher.logits(images[:1]), logits[:1])  # of no other image
    largest = family.extremes()["largest/fp32"]
    weights = torch.load(taught, weights_only=True)["model"]["classifier.weight"]
    assert torch.equal(teacher.network.layer("classifier").weight, weights)
    assert teacher.resolution == family.resolution(largest)


def test_subnets_learn_from_the_teacher_and_the_largest_from_labels(
    family: Family,
    few_digits: ImageClassification,
    taught: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(QUICK, teacher=str(taught))
    batches = Batches(few_digits, config, 1, World(), torch.device("cpu"))
    ((images, labels),) = list(batches.of(0))
    expected = load_teacher(str(taught), family, batches).logits(images)
    distilled, labelled = image_classification.distillation_loss, image_classification.label_loss
    seen: list[tuple[str, torch.Tensor]] = []
    monkeypatch.setattr(
        image_classification,
        "distillation_loss",
        lambda x, teacher: (seen.append(("teacher", teacher)), distilled(x, teacher))[1],
    )
    monkeypatch.setattr(
        image_classification,
        "label_loss",
        lambda x, targets, s: (seen.append(("labels", targets)), labelled(x, targets, s))[1],
    )
    next(train(family, few_digits, config, tmp_path / "last.pt", seed=1))
    assert [name for name, _ in seen] == ["labels", "teacher"]
    assert torch.equal(seen[0][1], labels)
    assert torch.equal(seen[1][1], expected)


def test_the_same_teacher_may_move_and_another_is_refused(
    family: Family, few_digits: ImageClassification, taught: Path, tmp_path: Path
) -> None:
    path, moved, other = tmp_path / "last.pt", tmp_path / "moved.pt", tmp_path / "other.pt"
    moved.write_bytes(taught.read_bytes())
    list(train(family, few_digits, replace(QUICK, checkpoint_s=1e9), other, seed=3))
    next(train(family, few_digits, replace(QUICK, teacher=str(taught)), path, seed=1))
    next(train(family, few_digits, replace(QUICK, teacher=str(moved)), path, seed=1))
    with pytest.raises(TrilobitError, match=r"another config \(teacher "):
        next(train(family, few_digits, replace(QUICK, teacher=str(other)), path, seed=1))


def test_teachers_that_cannot_teach_are_refused(
    family: Family, few_digits: ImageClassification, taught: Path, tmp_path: Path
) -> None:
    path = tmp_path / "unfinished.pt"
    next(train(family, few_digits, QUICK, path, seed=1))
    with pytest.raises(TrilobitError, match="must be finished, this one has 2 steps left"):
        start(family, few_digits, replace(QUICK, teacher=str(path)), seed=1)
    with pytest.raises(TrilobitError, match="no such checkpoint"):
        start(family, few_digits, replace(QUICK, teacher=str(tmp_path / "none.pt")), seed=1)
    letters = replace(few_digits, classes=tuple("abcdefghij"))
    with pytest.raises(TrilobitError, match="a teacher must know the classes of this data"):
        start(family, letters, replace(QUICK, teacher=str(taught)), seed=1)


# -- watching -----------------------------------------------------------------------------------------


def test_accuracies_come_every_so_many_epochs_and_change_nothing(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    config = replace(QUICK, epochs=3, ema=0.5)
    watched, blind = tmp_path / "watched.pt", tmp_path / "blind.pt"
    steps = list(train(family, few_digits, replace(config, evaluate_every=2), watched, seed=1))
    assert [progress.step for progress in steps if progress.accuracies] == [6, 9]  # and at the end
    found = steps[-1].accuracies
    assert sorted(found) == ["largest", "smallest"]
    assert all(progress.images == 16 for progress in steps)
    list(train(family, few_digits, config, blind, seed=1))
    state = state_of(watched, family)
    assert [epochs for epochs, _, _ in state.pop("watched")] == [2, 3]
    expected = state_of(blind, family)
    assert expected.pop("watched") == []
    assert_same(state, expected)
    net = load_supernet(family, watched)  # the averaged weights are what is looked at
    assert validation_metrics(family, net, few_digits, seed=1, device=torch.device("cpu")) == found


def test_watched_accuracy_is_that_of_an_evaluation(
    family: Family, few_digits: ImageClassification, taught: Path
) -> None:
    net, calibration = load_supernet(family, taught), calibration_examples(few_digits, seed=0)
    found = validation_metrics(family, net, few_digits, seed=0, device=torch.device("cpu"))
    for name, accuracy in found.items():
        candidate = family.extremes()[f"{name}/fp32"]
        network = build_network(family, net, candidate, few_digits, calibration)
        assert accuracy == simulated_metric(network, few_digits.validation, few_digits)
