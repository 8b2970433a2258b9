"""Tasks of text: metrics against torch, scikit-learn and slow loops; what networks read; learning."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, recall_score
from torch import nn
from torch.nn import functional as F

from hw_profiles.errors import TrilobitError
from nas.run.config import DataSection, DeviceSection, RunConfig
from nas.run.defaults import SPACES_OF_TEXT, with_defaults
from nas.run.run import Run
from nas.search.objectives import canonical_name, objective
from supernet.data.augmentation import Augmentation
from supernet.data.kinds import ANSWERS
from supernet.data.tokens import BYTES, PADDING, Texts, Windows, windows_over
from supernet.families.family import load_family
from supernet.tasks.evaluate import CALIBRATION_TOKENS, calibration_examples
from supernet.tasks.fit import require_readable
from supernet.tasks.language_metrics import MOST_BITS, bits_of_targets
from supernet.tasks.language_modelling import BYTE_NAMES, LanguageModelling
from supernet.tasks.loading import load_data, require_images
from supernet.tasks.sequence_classification import SequenceClassification, attention_mask
from supernet.tasks.task import Task, reads
from supernet.tasks.token_classification import TokenClassification
from tests.supernet.families.tokens import tiny_text, tiny_texts

PLAIN, CPU = Augmentation(), torch.device("cpu")
CLASSES = ("a", "b", "c")
TEXT = np.frombuffer(b"the quick brown fox jumps over the lazy dog; " * 40, np.uint8)


def language(length: int = 8, text: np.ndarray = TEXT) -> LanguageModelling:
    windows = windows_over(text, length, length)
    return LanguageModelling("made-up", BYTE_NAMES, windows, windows[::2], windows[::3])


def token_task(length: int = 8) -> TokenClassification:
    windows = windows_over(TEXT, length, length, labels=(TEXT % 3).astype(np.uint8))
    return TokenClassification("made-up", CLASSES, windows, windows[::2], windows[::3])


def sequence_task(count: int = 30, length: int = 6) -> SequenceClassification:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, length + 1, count)
    ends = np.cumsum(sizes)
    texts = Texts(TEXT[: ends[-1]], ends - sizes, ends, rng.integers(0, 3, count), length)
    return SequenceClassification("made-up", CLASSES, texts, texts[::2], texts[::3])


TASKS = (language, token_task, sequence_task)


def random_logits(task: Task, examples: object, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    shape = tuple(task.targets(examples).shape)
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(*shape, len(task.classes)))).astype(np.float32)


# -- what networks read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", TASKS)
def test_networks_read_tokens(make: type) -> None:
    task: Task = make()
    assert reads(task) == "tokens"
    inputs = task.inputs(task.test, 5)
    assert (inputs.dtype, inputs.shape) == (torch.int64, (len(task.test), 5))
    assert 0 <= inputs.min() <= inputs.max() < task.channels
    x, y = task.training_batch(task.train[np.arange(4)], PLAIN, seed=1, device=CPU)
    again, _ = task.training_batch(task.train[np.arange(4)], PLAIN, seed=1, device=CPU)
    assert torch.equal(x, again)
    assert torch.equal(task.sized(x, 3), x[:, :3])
    assert y.shape == task.targets(task.train[:4]).shape
    with pytest.raises(TrilobitError, match=r"reads 99 tokens, and examples have .*length=99"):
        task.inputs(task.test, 99)
    with pytest.raises(TrilobitError, match="images of classes are needed here"):
        require_images(task)


def test_targets_follow_the_windows_wherever_they_are_moved() -> None:
    task = language()
    x, y = task.training_batch(task.train, PLAIN, seed=3, device=CPU)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert not torch.equal(x, task.inputs(task.train, 8))  # moved
    tokens = token_task()
    x, y = tokens.training_batch(tokens.train, PLAIN, seed=3, device=CPU)
    assert torch.equal(x % 3, y)


def test_the_mask_is_what_is_text() -> None:
    task = sequence_task()
    mask = attention_mask(task.inputs(task.train, task.length))
    assert mask.sum(dim=1).tolist() == (task.train.ends - task.train.starts).tolist()
    assert task.channels == PADDING + 1
    assert language().channels == BYTES == len(set(BYTE_NAMES)) == len(language().classes)


def test_calibration_takes_so_many_tokens() -> None:
    windows = Windows(np.zeros(2**16, np.uint8), np.arange(2**12), 1_024)
    task = LanguageModelling("made-up", BYTE_NAMES, windows, windows, windows)
    some = calibration_examples(task, seed=0)
    assert len(some) * 1_024 == CALIBRATION_TOKENS
    assert len(calibration_examples(language(), seed=0)) == len(language().train)


# -- losses and metrics --------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 6))
def test_bits_are_those_of_torch(seed: int, n: int, t: int) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = (9 * rng.normal(size=(n, t, 7))).astype(np.float32), rng.integers(0, 7, (n, t))
    nats = F.cross_entropy(
        torch.from_numpy(logits).double().transpose(1, 2), torch.from_numpy(targets), reduction="none"
    )
    np.testing.assert_allclose(bits_of_targets(logits, targets), nats.numpy() / np.log(2), atol=1e-9)


def test_bits_of_anything_are_finite() -> None:
    logits = np.array([[[np.nan, 0], [np.inf, 0], [-np.inf, 0], [1e30, -1e30]]], np.float32)
    bits = bits_of_targets(logits, np.array([[0, 0, 0, 1]]))
    np.testing.assert_allclose(bits, MOST_BITS)
    assert bits_of_targets(logits, np.array([[1, 1, 1, 0]]))[0, 2:].tolist() == [0, 0]
    task = language(4, TEXT[:5])
    broken = np.full((1, 4, BYTES), np.nan, np.float32)
    values = task.evaluate(broken, task.train, np.zeros_like(broken))
    assert all(np.isfinite(value) for value in values.values())


@given(st.integers(0, 999))
def test_metrics_of_language_are_those_of_a_slow_loop(seed: int) -> None:
    task = language()
    part = task.test[:3]
    logits, original = (random_logits(task, part, seed + i) for i in range(2))
    bits, right, same, kl = [], [], [], []
    for row, start in enumerate(part.starts):
        for position in range(8):
            mine, theirs = (
                torch.from_numpy(array[row, position]).double().log_softmax(0) for array in (logits, original)
            )
            target = int(TEXT[start + position + 1])
            bits.append(-float(mine[target]) / np.log(2))
            right.append(int(mine.argmax()) == target)
            same.append(int(mine.argmax()) == int(theirs.argmax()))
            kl.append(float(F.kl_div(mine, theirs, log_target=True, reduction="sum")))
    values = task.evaluate(logits, part, original)
    assert set(values) == {metric.name for metric in task.metrics}
    expected = (np.mean(bits), 2 ** np.mean(bits), np.mean(right), np.mean(same), np.mean(kl))
    names = ("bits_per_byte", "perplexity", "accuracy", "agreement", "kl")
    assert [values[name] for name in names] == pytest.approx(expected, rel=1e-6)
    assert task.scores(logits, part).mean() == pytest.approx(values["bits_per_byte"])


def test_bits_per_byte_are_those_of_scikit_learn() -> None:
    task = language()
    logits = random_logits(task, task.test)
    probabilities = torch.from_numpy(logits).double().softmax(2).reshape(-1, BYTES).numpy()
    nats = log_loss(task.targets(task.test).ravel(), probabilities, labels=np.arange(BYTES))
    assert task.evaluate(logits, task.test)["bits_per_byte"] == pytest.approx(nats / np.log(2), rel=1e-6)


def test_what_knows_nothing_needs_eight_bits_and_what_knows_all_none() -> None:
    task = language()
    nothing = np.zeros((len(task.test), 8, BYTES), np.float32)
    values = task.evaluate(nothing, task.test, nothing)
    assert (values["bits_per_byte"], values["perplexity"]) == pytest.approx((8, 256))
    assert (values["agreement"], values["kl"]) == (1, 0)
    everything = 100 * np.eye(BYTES, dtype=np.float32)[task.targets(task.test).numpy()]
    assert task.evaluate(everything, task.test)["bits_per_byte"] == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 999))
def test_metrics_of_tokens_are_those_of_scikit_learn(seed: int) -> None:
    task = token_task()
    logits, original = (random_logits(task, task.test, seed + i) for i in range(2))
    answers = task.targets(task.test).numpy().ravel()
    said, first = logits.argmax(2).ravel(), original.argmax(2).ravel()
    values = task.evaluate(logits, task.test, original)
    assert set(values) == {metric.name for metric in task.metrics}
    assert values["accuracy"] == pytest.approx(accuracy_score(answers, said))
    assert values["worst_class"] == pytest.approx(recall_score(answers, said, average=None).min())
    assert (
        values["agreement"] == pytest.approx(accuracy_score(first, said)) == task.agreement(logits, original)
    )
    assert values["flips"] == pytest.approx(((first == answers) & (said != answers)).mean())
    assert task.scores(logits, task.test).mean() == pytest.approx(values["accuracy"])
    assert not any(metric.share for metric in task.metrics)


def test_metrics_of_texts_are_those_of_scikit_learn() -> None:
    task = sequence_task()
    logits, original = (random_logits(task, task.train, i) for i in range(2))
    values = task.evaluate(logits, task.train, original)
    assert values["accuracy"] == pytest.approx(accuracy_score(task.train.labels, logits.argmax(1)))
    assert values["accuracy"] == pytest.approx(task.scores(logits, task.train).mean())
    assert values["agreement"] == pytest.approx((logits.argmax(1) == original.argmax(1)).mean())
    assert {"flips", "agreement"}.isdisjoint(task.evaluate(logits, task.train))


@pytest.mark.parametrize("make", TASKS)
def test_losses_are_means_over_positions(make: type) -> None:
    task: Task = make()
    logits, teacher = (torch.from_numpy(random_logits(task, task.test, i)) for i in range(2))
    targets = task.targets(task.test)
    classes = len(task.classes)
    hard = [
        F.cross_entropy(row[None], target[None])
        for row, target in zip(logits.reshape(-1, classes), targets.reshape(-1), strict=True)
    ]
    assert task.loss(logits, targets, smoothing=0.0) == pytest.approx(
        float(torch.stack(hard).mean()), rel=1e-5
    )
    assert task.loss(logits, targets, smoothing=0.1) != pytest.approx(
        float(torch.stack(hard).mean()), rel=1e-5
    )
    soft = -(teacher.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()
    assert task.distillation_loss(logits, teacher) == pytest.approx(float(soft), rel=1e-5)


@pytest.mark.parametrize("make", [language, token_task])
def test_a_network_of_fewer_tokens_is_judged_by_those(make: type) -> None:
    task: Task = make()
    logits = random_logits(task, task.test)
    short = logits[:, :3]
    whole = Windows(task.test.text, task.test.starts, 3, task.test.labels)
    alone = type(task)(task.name, task.classes, whole, whole, whole)
    assert task.evaluate(short, task.test) == alone.evaluate(short, whole)
    a, b, targets = torch.from_numpy(short), torch.from_numpy(logits), task.targets(task.test)
    assert task.loss(a, targets, smoothing=0) == alone.loss(a, targets[:, :3], smoothing=0)
    soft = -(b[:, :3].softmax(-1) * a.log_softmax(-1)).sum(-1).mean()
    assert task.distillation_loss(a, b) == pytest.approx(float(soft), rel=1e-5)
    assert task.distillation_loss(b, a) == task.distillation_loss(b[:, :3], a)


# -- learning ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learned:
    before: float
    after: float


def learn(task: Task, net: nn.Module, steps: int = 40) -> Learned:
    """The main metric of the test part before and after some steps."""
    optimiser = torch.optim.AdamW(net.parameters(), 0.05)

    def metric() -> float:
        with torch.no_grad():
            outputs = net(task.inputs(task.test, task.train.length)).numpy()
        return task.evaluate(outputs, task.test)[task.metrics[0].name]

    before = metric()
    for step in range(steps):
        x, y = task.training_batch(task.train[step % 4 :: 4], PLAIN, seed=step, device=CPU)
        optimiser.zero_grad()
        task.loss(net(x), y, smoothing=0.0).backward()
        optimiser.step()
    return Learned(before, metric())


class MeanOfText(nn.Module):
    """Logits from the mean of the embeddings of what is text."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = attention_mask(ids)[..., None].float()
        return (self.embedding(ids) * mask).sum(1) / mask.sum(1).clamp(min=1)


def test_small_networks_learn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = language()
    learned = learn(task, nn.Sequential(nn.Embedding(task.channels, 16), nn.Linear(16, BYTES)))
    assert learned.before > 7
    assert learned.after < 2  # what follows a letter of this text is nearly sure
    tokens = token_task()
    learned = learn(tokens, nn.Sequential(nn.Embedding(tokens.channels, 16), nn.Linear(16, 3)))
    assert learned.after == 1
    rows = "".join(
        f"{'good fine' if i % 2 else 'bad poor'} number {i},{['no', 'yes'][i % 2]}\n" for i in range(60)
    )
    (tmp_path / "it.csv").write_text("text,label\n" + rows)
    texts = load_data(f"csv:{tmp_path / 'it.csv'}?length=24", seed=0)
    assert learn(texts, MeanOfText(texts.channels, 2)).after == 1


# -- in a run ------------------------------------------------------------------------------------------------


def test_a_space_of_images_refuses_text(tmp_path: Path) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=3)
    with pytest.raises(
        TrilobitError, match="digits-mbconv is of networks that read images, and made-up is tokens"
    ):
        require_readable(language(), family)
    (tmp_path / "it.txt").write_bytes(TEXT.tobytes() * 9)
    run = Run(
        tmp_path, RunConfig(data=DataSection(f"text:{tmp_path / 'it.txt'}"), device=DeviceSection("ort"))
    )
    with pytest.raises(
        TrilobitError, match=r"it\.txt is tokens; take --space text-decoder or text-decoder-5m, or"
    ):
        run.family  # noqa: B018


REFUSED = [
    ("text-encoder", language, "say the class of each example", "text-decoder or text-decoder-5m", "csv"),
    ("token-encoder", language, "say the class of each token", "text-decoder or", "python-tokens"),
    ("text-decoder", token_task, "say the token that follows each", "token-encoder,", "python-bytes or text"),
    ("token-encoder", sequence_task, "say the class of each token", "text-encoder or bert", "python-tokens"),
]


@pytest.mark.parametrize(("space", "make", "says", "spaces", "data"), REFUSED)
def test_a_space_refuses_a_task_that_asks_for_something_else(
    space: str, make: Callable[..., Task], says: str, spaces: str, data: str
) -> None:
    task = make(length=128)
    family = load_family(space, in_channels=task.channels, classes=len(task.classes))
    with pytest.raises(TrilobitError) as refusal:
        require_readable(task, family)
    line = str(refusal.value)
    assert f"space {space} is of networks that {says}, and made-up asks for {ANSWERS[task.answers]}" in line
    assert f"; take --space {spaces}" in line
    assert line.endswith(f"or --data {data}")
    assert "\n" not in line


def test_a_space_takes_what_asks_for_what_it_says() -> None:
    one_each = tiny_texts(in_channels=257, classes=3)
    require_readable(language(16), tiny_text(in_channels=256, classes=256))
    require_readable(sequence_task(length=16), one_each)


def test_a_space_of_longer_texts_than_examples_are_is_refused() -> None:
    with pytest.raises(TrilobitError, match=r"read 16 tokens, and examples of made-up have 8; say length=16"):
        require_readable(language(), tiny_text(in_channels=256, classes=256))


@pytest.mark.parametrize(("source", "space"), SPACES_OF_TEXT.items())
def test_its_usual_space_reads_it(source: str, space: str) -> None:
    filled, note = with_defaults({"data": {"source": f"{source}:it.txt"}})
    assert filled["space"] == {"name": space}
    assert f"space {space}" in note
    made: dict[str, Callable[..., Task]] = {"python-tokens": token_task, "csv": partial(sequence_task, 12)}
    task = made.get(source, language)(length=128)
    require_readable(task, load_family(space, in_channels=task.channels, classes=len(task.classes)))


def test_networks_of_other_lengths_are_compared_where_both_read() -> None:
    """The original reads more tokens: what it says of the others decides nothing."""
    rng = np.random.default_rng(0)
    for task, classes in ((language(), BYTES), (token_task(), 3)):
        n = len(task.validation)
        outputs = rng.standard_normal((n, 5, classes)).astype(np.float32)
        original = np.concatenate([outputs, rng.standard_normal((n, 3, classes))], 1).astype(np.float32)
        values = task.evaluate(outputs, task.validation, original)
        assert values["agreement"] == task.agreement(outputs, original) == 1
        alone = task.evaluate(outputs, task.validation)
        assert {name: values[name] for name in alone} == alone


def test_its_objectives_are_known() -> None:
    assert objective("bits-per-byte").direction == objective("perplexity").direction == "min"
    assert canonical_name("bpb") == "bits_per_byte"
    filled, note = with_defaults({"data": {"source": "python-bytes"}})
    assert filled["search"]["objectives"] == ("bits_per_byte", "latency", "size")
    assert "objectives bits_per_byte, latency, size" in note
    said = {"data": {"source": "text:x"}, "search": {"objectives": ("bits_per_byte",)}}
    assert with_defaults(said)[0]["search"] == said["search"]
    assert "search" not in with_defaults({"data": {"source": "python-tokens"}})[0]
