"""What somebody's network must answer, wherever it runs: made-up inputs that anyone can make again, and what
it gave for them. Nothing of the user's data leaves with a network but the smallest and the largest number of
each input. Imports no torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
MOST_EXAMPLES = 16
MOST_VALUES = 4096  # of all answers together
MOST_VALUES_EACH = 256
MADE_UP_BYTES = 2**28  # of all made-up inputs together
PATCH = 4  # equal numbers in a row: white noise alone looks the same to a network everywhere
SHORTEST_PATCHED = 16  # an axis that is shorter, such as channels or classes, has a number at each place
TOLERANCE = 0.05  # of an answer's largest number: codes may round the other way on a tie
SHARE = 0.9  # of answers that must be the same
PRECISION = 6  # digits that are kept
DTYPES = (
    "float16",
    "float32",
    "float64",
    "bool",
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
)


def _dtype(text: str) -> None:
    if text not in DTYPES:
        raise ValueError(f"{text[:40]!r}: one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class ExampleInput:
    """What one input of a network is made up of.

    Attributes:
        name: of the input.
        dtype: numpy's name of its element type.
        shape: of one example; open dimensions have the sizes that the network was measured with.
        low, high: the smallest and the largest number.
    """

    name: str
    dtype: Annotated[str, _dtype]
    shape: tuple[int, ...]
    low: float
    high: float

    def __post_init__(self) -> None:
        if min(self.shape, default=1) < 1 or not self.low <= self.high:
            raise ValueError(f"input {self.name[:40]!r}: needs sizes from 1, and low not above high")

    @property
    def size_bytes(self) -> int:
        """Of one example."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Answer:
    """What one output was for one example.

    Attributes:
        shape: of it.
        largest: absolute value of its largest finite number.
        values: numbers that stand evenly spaced in it, the first and the last among them; None is one that
            is not finite.
    """

    shape: tuple[int, ...]
    largest: float
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ExampleAnswers:
    """What a network answers to the first made-up examples.

    Attributes:
        inputs: what these are made up of.
        outputs: by name, an answer for each example.
    """

    inputs: tuple[ExampleInput, ...]
    outputs: Mapping[str, tuple[Answer, ...]]

    def __post_init__(self) -> None:
        counts = set(map(len, self.outputs.values()))
        if len(counts) != 1 or not 1 <= min(counts) <= MOST_EXAMPLES:
            raise ValueError(f"needs 1 to {MOST_EXAMPLES} answers of every output")
        if sum(example.size_bytes for example in self.inputs) * self.examples > MADE_UP_BYTES:
            raise ValueError("examples of these sizes are too large to make up")

    @property
    def examples(self) -> int:
        """How many there are."""
        return len(next(iter(self.outputs.values())))

    def to_json(self) -> dict[str, Any]:
        """Return it for a manifest."""
        return asdict(self)


def example_inputs(inputs: Mapping[str, Array]) -> tuple[ExampleInput, ...]:
    """Return what examples like these, (n, ...) by input, are made up of.

    Raises:
        ValueError: an input is no number, or holds none that is finite.
    """
    return tuple(_like(name, array) for name, array in inputs.items())


def _like(name: str, array: Array) -> ExampleInput:
    if str(array.dtype) not in DTYPES:
        raise ValueError(f"input {name!r}: {array.dtype} cannot be made up")
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    if not finite.size:
        raise ValueError(f"input {name!r}: holds no finite number")
    low, high = float(finite.min()), float(finite.max())
    return ExampleInput(name, str(array.dtype), array.shape[1:], low, high)


def made_up(inputs: Sequence[ExampleInput], example: int) -> dict[str, Array]:
    """Return what a network reads for one made-up example, by input; the same everywhere and always, since
    the bits are integer arithmetic: SplitMix64 (Steele et al. 2014, doi:10.1145/2714064.2660195).
    """
    return {
        stated.name: _made_up(stated, stream=example * len(inputs) + position)
        for position, stated in enumerate(inputs)
    }


def _made_up(stated: ExampleInput, stream: int) -> Array:
    patches = tuple(PATCH if size >= SHORTEST_PATCHED else 1 for size in stated.shape)
    coarse = tuple(-(-size // patch) for size, patch in zip(stated.shape, patches, strict=True))
    bits = _split_mix(np.uint64(stream << 40) + np.arange(1, math.prod(coarse) + 1, dtype=np.uint64))
    numbers = _between(bits, stated).reshape(coarse)
    for axis, patch in enumerate(patches):
        numbers = numbers.repeat(patch, axis=axis)
    whole: Array = np.array(numbers[tuple(map(slice, stated.shape))], order="C")
    return whole


def _split_mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


def _between(bits: NDArray[np.uint64], stated: ExampleInput) -> Array:
    """Return a number of the input's range for each 64 bits."""
    kind = np.dtype(stated.dtype)
    if kind.kind == "f":
        share = (bits >> np.uint64(40)).astype(np.float64) / 2**24  # exact
        return np.clip(stated.low * (1 - share) + stated.high * share, stated.low, stated.high).astype(kind)
    low, high = int(stated.low), int(stated.high)
    return (np.uint64(low % 2**64) + bits % np.uint64(min(high - low + 1, 2**64 - 1))).astype(kind)


# -- answers ---------------------------------------------------------------------------------------


def answers(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]], inputs: Sequence[ExampleInput], examples: int
) -> ExampleAnswers:
    """Return what a network gives for made-up examples.

    Args:
        run: from inputs to outputs, by name.
    """
    rows = [run(made_up(inputs, example)) for example in range(examples)]
    each = min(MOST_VALUES_EACH, max(1, MOST_VALUES // max(1, examples * len(rows[0]))))
    outputs = {name: tuple(_answer(row[name], each) for row in rows) for name in rows[0]}
    return ExampleAnswers(tuple(inputs), outputs)


def _answer(output: Array, count: int) -> Answer:
    flat = np.asarray(output).reshape(-1)
    numbers = flat.astype(np.float64)
    finite = np.abs(numbers[np.isfinite(numbers)])
    places = np.unique(np.linspace(0, max(len(flat) - 1, 0), min(count, len(flat))).astype(np.int64))
    return Answer(np.shape(output), _kept(finite.max(initial=0.0)), tuple(map(_number, numbers[places])))


def _number(value: float) -> float | None:
    return _kept(value) if math.isfinite(value) else None


def _kept(value: float) -> float:
    """Return a number with so many digits as are kept; whole ones whole."""
    return (
        float(value) if float(value).is_integer() and abs(value) < 2**53 else float(f"{value:.{PRECISION}g}")
    )


def agreement(now: ExampleAnswers, then: ExampleAnswers) -> tuple[float, float]:
    """Return the share of answers that are the same, and the largest difference of one, as a share of the
    largest number of its answer; infinite where shapes or what is finite differ.
    """
    if now.outputs.keys() != then.outputs.keys() or now.examples != then.examples:
        return 0.0, math.inf
    pairs = [
        pair for name in then.outputs for pair in zip(now.outputs[name], then.outputs[name], strict=True)
    ]
    differences = np.array([_difference(*pair) for pair in pairs])
    return float((differences <= TOLERANCE).mean()), float(differences.max())


def _difference(now: Answer, then: Answer) -> float:
    """Return the root mean square difference of two answers' values as a share of the larger's largest
    number.
    """
    if now.shape != then.shape or len(now.values) != len(then.values):
        return math.inf
    if [value is None for value in now.values] != [value is None for value in then.values]:
        return math.inf
    a, b = (np.array([v for v in x.values if v is not None] + [x.largest]) for x in (now, then))
    scale = max(now.largest, then.largest)
    return float(np.sqrt(np.mean((a - b) ** 2)) / scale) if scale else 0.0
