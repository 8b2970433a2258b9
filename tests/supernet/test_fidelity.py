"""Metrics of `Fidelity`, against scipy, scikit-learn and torch, and what outputs are recognised as."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score

from hw_profiles.errors import TrilobitError
from supernet.data.samples import Samples
from supernet.tasks.class_metrics import LEAST_OF_CLASS, worst_class
from supernet.tasks.fidelity import Fidelity, fidelity_of
from supernet.tasks.metric import SNR
from supernet.tasks.output_roles import Role, recognise_output


def samples(count: int, labels: np.ndarray | None = None, classes: tuple[str, ...] = ()) -> Samples:
    return Samples({"x": np.zeros((count, 1))}, labels, classes=classes)


def logits(count: int, classes: int = 5, *, seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (count, classes)).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(values.astype(np.float64)), -1).numpy()


# -- values --------------------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.integers(20, 60), st.integers(2, 9))
def test_class_scores_against_torch_and_scikit_learn(seed: int, count: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    original, labels = logits(count, classes, seed=seed), rng.integers(0, classes, count)
    labels[:classes] = np.arange(classes)
    network = original + rng.normal(0, 1, original.shape).astype(np.float32)
    made = fidelity_of({"y": original}, samples(count, labels))
    assert made.answered == "y"
    values, errors = made.assess({"y": network}, samples(count, labels), {"y": original})
    log_p, log_q = (torch.log_softmax(torch.from_numpy(each).double(), 1) for each in (original, network))
    expected = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    assert values["kl"] == pytest.approx(float(expected), rel=1e-6)
    mine, theirs = network.argmax(1), original.argmax(1)
    assert values["agreement"] == pytest.approx(accuracy_score(theirs, mine))
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, mine))
    assert values["flips"] == pytest.approx(np.mean((theirs == labels) & (mine != labels)))
    noise = np.var(network - original) + np.mean(network - original) ** 2
    assert values["snr"] == pytest.approx(
        10 * np.log10(np.mean(original.astype(float) ** 2) / noise), rel=1e-4
    )
    common = np.flatnonzero(np.bincount(labels) >= LEAST_OF_CLASS)
    recalls = recall_score(
        labels, mine, labels=common if len(common) else None, average=None, zero_division=0
    )
    assert values["worst_class"] == pytest.approx(recalls.min())
    share = values["accuracy"]
    assert errors["accuracy"] == pytest.approx(np.sqrt(share * (1 - share) / count))
    single = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1).numpy()
    assert errors["kl"] == pytest.approx(single.std(ddof=1) / np.sqrt(count), rel=1e-5)


@given(st.integers(0, 999), st.sampled_from(["float32", "float16", "float64"]), st.booleans())
def test_a_network_is_like_itself(seed: int, dtype: str, batched: bool) -> None:
    made = logits(30, 7, seed=seed).astype(dtype)
    for outputs in ({"y": made}, {"y": softmax(made).astype(dtype)}, {"y": made, "z": made * 2}):
        given = {name: array[:, None] if batched else array for name, array in outputs.items()}
        fidelity = fidelity_of(given, samples(30))
        values = fidelity.evaluate(given, samples(30), given)
        assert (values["kl"], values["agreement"], values["snr"], values["worst_class"]) == (0, 1, 200, 1)
        assert [metric.name for metric in fidelity.metrics] == ["kl", "snr", "agreement", "worst_class"]


def test_probabilities_and_their_logarithms_diverge_alike() -> None:
    original, network = logits(40), logits(40, seed=1)
    pairs = {
        "logits": (original, network),
        "probabilities": (softmax(original), softmax(network)),
        "logarithms": (np.log(softmax(original)), np.log(softmax(network))),
    }
    divergences = {}
    for name, (theirs, mine) in pairs.items():
        made = fidelity_of({"y": theirs}, samples(40))
        divergences[name] = made.evaluate({"y": mine}, samples(40), {"y": theirs})["kl"]
    assert list(divergences.values()) == pytest.approx([divergences["logits"]] * 3, rel=1e-6)


def test_sequences_are_right_as_a_whole() -> None:
    steps = np.zeros((10, 12, 20), np.float32)
    rng = np.random.default_rng(0)
    spelled = np.where(rng.random((10, 12)) < 0.6, 0, rng.integers(1, 20, (10, 12)))
    np.put_along_axis(steps, spelled[..., None], 9, -1)
    original = {"y": softmax(steps).astype(np.float32)}
    made = fidelity_of(original, samples(10))
    assert made.outputs[0].sequence
    assert made.outputs[0].blank == 0
    moved = steps.copy()
    moved[0] = np.roll(steps[0], 1, 0) if spelled[0, -1] == 0 else steps[0]  # the same text a step later
    moved[1, 0] = 0
    moved[1, 0, (spelled[1, 0] + 1) % 20 or 1] = 9  # another letter
    values = made.evaluate({"y": softmax(moved).astype(np.float32)}, samples(10), original)
    assert values["agreement"] == 0.9
    assert 0.9 < values["steps"] < 1
    assert {"kl", "agreement", "steps", "snr"} == set(values)


def test_whole_numbers_and_chances_are_decisions() -> None:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 9, 40)
    made = fidelity_of({"y": chosen}, samples(40))
    assert [metric.name for metric in made.metrics] == ["agreement"]
    assert made.evaluate({"y": np.r_[chosen[:30], chosen[30:] + 1]}, samples(40), {"y": chosen}) == {
        "agreement": 0.75
    }
    chances = rng.beta(0.1, 0.1, (40, 1)).astype(np.float32)
    made = fidelity_of({"y": chances[:, None]}, samples(40))  # a batch of one
    assert made.outputs[0].role is Role.CHANCES
    values = made.evaluate({"y": 1 - chances[:, None]}, samples(40), {"y": chances[:, None]})
    assert values["agreement"] == 0
    q, p = (np.clip(array.astype(float), 1e-12, 1 - 1e-12) for array in (1 - chances, chances))
    assert values["kl"] == pytest.approx(
        np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))), rel=1e-4
    )


def test_things_found_may_be_of_any_number() -> None:
    rng = np.random.default_rng(0)
    theirs = [rng.normal(200, 90, (k, 6)).astype(np.float32) for k in (3, 0, 5, 4)]
    mine = [theirs[0], theirs[1], theirs[2][:4], theirs[3]]
    made = fidelity_of({"boxes": theirs}, samples(4))
    assert made.evaluate({"boxes": theirs}, samples(4), {"boxes": theirs}) == {"snr": 200}
    values = made.evaluate({"boxes": mine}, samples(4), {"boxes": theirs})
    energy = sum(float((each.astype(float) ** 2).sum()) for each in theirs)
    assert values["snr"] == pytest.approx(
        10 * np.log10(energy / float((theirs[2][4].astype(float) ** 2).sum())), rel=1e-5
    )


def test_a_network_without_numbers_is_the_worst() -> None:
    original = logits(20)
    made = fidelity_of({"y": original}, samples(20))
    broken = np.full_like(original, np.nan)
    values = made.evaluate({"y": broken}, samples(20), {"y": original})
    assert values == {"kl": np.inf, "snr": -np.inf, "agreement": 0, "worst_class": 0}
    with pytest.raises(TrilobitError, match="output y of the original is NaN in fp32 for sample 3"):
        fidelity_of({"y": np.where(np.arange(20)[:, None] == 3, np.nan, original)}, samples(20))


def test_infinities_of_a_mask_are_equal() -> None:
    original = logits(20, 6)
    original[:, 5] = -np.inf
    made = fidelity_of({"y": original}, samples(20))
    values = made.evaluate({"y": original}, samples(20), {"y": original})
    assert values == {"kl": 0, "snr": 200, "agreement": 1, "worst_class": 1}
    noisy = original + np.random.default_rng(1).normal(0, 0.1, original.shape).astype(np.float32)
    values = made.evaluate({"y": noisy}, samples(20), {"y": original})
    unmasked = fidelity_of({"y": original[:, :5]}, samples(20))
    assert values["kl"] == pytest.approx(
        unmasked.evaluate({"y": noisy[:, :5]}, samples(20), {"y": original[:, :5]})["kl"]
    )
    assert 20 < values["snr"] < 40


@given(st.integers(0, 999), st.integers(2, 9))
def test_nothing_depends_on_the_order_of_classes_or_samples(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    original, network = logits(24, classes, seed=seed), logits(24, classes, seed=seed + 1)
    order, rows = rng.permutation(classes), rng.permutation(24)
    plain = fidelity_of({"y": original}, samples(24)).evaluate({"y": network}, samples(24), {"y": original})
    moved = {"y": original[rows][:, order]}
    turned = fidelity_of(moved, samples(24)).evaluate({"y": network[rows][:, order]}, samples(24), moved)
    assert turned == pytest.approx(plain)
    assert plain["kl"] >= 0


def test_the_worst_class_needs_examples() -> None:
    answers = np.r_[np.zeros(6, int), np.ones(6, int), 2]
    assert worst_class(np.r_[np.zeros(6, int), 1, 1, 1, 0, 0, 0, 0], answers) == 0.5
    assert worst_class(np.array([0, 1, 0]), np.array([0, 1, 2])) == 0


# -- what outputs are ----------------------------------------------------------------------------------------


def test_outputs_are_recognised() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (50, 64))
    steps = rng.normal(0, 4, (20, 30, 40))
    yolo = np.concatenate([rng.uniform(0, 640, (8, 300, 4)), rng.normal(-5, 1, (8, 300, 20))], -1)
    cases: dict[str, tuple[np.ndarray, Role]] = {
        "logits": (logits(50), Role.SCORES),
        "two classes": (logits(50, 2), Role.SCORES),
        "softmax": (softmax(logits(50)), Role.PROBABILITIES),
        "softmax in half precision": (softmax(logits(50, 1000)).astype(np.float16), Role.PROBABILITIES),
        "log softmax": (np.log(softmax(logits(50))), Role.SCORES),
        "unit vectors": (features / np.linalg.norm(features, axis=1, keepdims=True), Role.VALUES),
        "rectified": (np.maximum(features, 0), Role.VALUES),
        "always the last": (features + np.arange(64) * 9, Role.VALUES),
        "steps": (steps, Role.SCORES),
        "softmax of steps": (softmax(steps), Role.PROBABILITIES),
        "hidden states": (rng.normal(0, 0.5, (20, 30, 768)), Role.VALUES),
        "boxes": (rng.uniform(0, 640, (20, 100, 4)), Role.VALUES),
        "boxes and scores": (yolo, Role.VALUES),
        "a map of classes": (
            np.moveaxis(softmax(rng.normal(0, 3, (5, 8, 8, 21))), -1, 1),
            Role.PROBABILITIES,
        ),
        "an image": (rng.uniform(0, 1, (5, 3, 16, 16)), Role.VALUES),
        "a number": (rng.normal(0, 1, (50, 1)), Role.VALUES),
        "marks": (rng.uniform(0.2, 0.8, (50, 10)), Role.VALUES),
        "chosen": (rng.integers(0, 9, (50, 1)), Role.DECISIONS),
        "classes at a single place": (logits(50)[..., None, None], Role.SCORES),
        "features at a single step": (np.maximum(features, 0)[:, None], Role.VALUES),
        "one chance": (rng.uniform(0.2, 0.8, (50, 1)), Role.CHANCES),
        "a share": (rng.uniform(0.2, 0.4, (50, 1)), Role.VALUES),
    }
    made = {name: recognise_output("y", array).role for name, (array, _) in cases.items()}
    assert made == {name: role for name, (_, role) in cases.items()}
    batched = {name: recognise_output("y", array[:, None]).role for name, (array, _) in cases.items()}
    assert batched == made


def test_what_is_said_of_outputs_and_labels() -> None:
    original = {"y": logits(20)}
    made = fidelity_of(original, samples(20, np.zeros(20, np.int64), ("a", "b")))
    assert str(made) == (
        "y: 5 class scores; folders are not taken for labels: 2 of them, and y tells 5 classes apart; "
        "--labels FILE names those"
    )
    with pytest.raises(TrilobitError, match="labels up to 7, and output y tells 5 classes apart"):
        fidelity_of(original, samples(20, np.full(20, 7)))
    said = fidelity_of(original, samples(20), roles={"y": Role.VALUES})
    assert said.metrics == (SNR,)
    with pytest.raises(TrilobitError, match="no output 'z'; outputs: y"):
        fidelity_of(original, samples(20), roles={"z": Role.VALUES})
    with pytest.raises(TrilobitError, match="it has no outputs"):
        fidelity_of({}, samples(20))


# -- own metrics ---------------------------------------------------------------------------------------------

MODULE = """
import numpy as np
def error(outputs, original, samples): return np.abs(outputs["y"] - original["y"]).mean()
error.direction, error.unit = "min", "points"
def two(outputs, original, samples): return {"first": 1, "second": len(samples)}
def raises(outputs, original, samples): return outputs["z"]
def words(outputs, original, samples): return "good"
def nan(outputs, original, samples): return float("nan")
def none(outputs, original, samples): return {}
def changes(outputs, original, samples): return {"same": 1} if outputs is original else {"other": 1}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_metrics.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "my_metrics"


def made_with(metric: str, **options: object) -> Fidelity:
    return fidelity_of({"y": logits(20)}, samples(20), metric=metric, **options)  # type: ignore[arg-type]


def test_own_metrics_come_first(own: str) -> None:
    made = made_with(f"{own}:error")
    assert [metric.name for metric in made.metrics][:2] == ["error", "kl"]
    assert (made.metrics[0].direction, made.metrics[0].unit) == ("min", "points")
    values = made.evaluate({"y": logits(20) + 2}, samples(20), {"y": logits(20)})
    assert values["error"] == pytest.approx(2)
    two = made_with(f"{own}:two", direction="min")
    assert [(metric.name, metric.direction) for metric in two.metrics[:2]] == [
        ("first", "min"),
        ("second", "min"),
    ]


def test_own_metrics_that_fail_are_named_in_one_line(own: str) -> None:
    cases = {
        "raises": "metric my_metrics:raises raised KeyError: \"'z'\"",
        "words": "metric my_metrics:words: gave 'good', which is no number",
        "nan": "metric my_metrics:nan: gave NaN",
        "none": "gave an empty dict",
        "absent": "importing my_metrics:absent raised AttributeError",
    }
    for name, words in cases.items():
        with pytest.raises(TrilobitError) as caught:
            made_with(f"{own}:{name}")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    changing = made_with(f"{own}:changes")
    with pytest.raises(TrilobitError, match="gave other, and before same"):
        changing.evaluate({"y": logits(20)}, samples(20), {"y": logits(20)})
