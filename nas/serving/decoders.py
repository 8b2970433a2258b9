"""Files of decoders with a key-value cache, recognised by what they read: a prompt, or one token.

Files of others call their inputs after Hugging Face Optimum (`input_ids`, `attention_mask`, `position_ids`,
`past_key_values.0.key`), or as torch's exporters do (`past_key_values_0_key`, `past_0`); all that is needed
is that caches begin with `past`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import one_line
from hw_profiles.graph.layer import MATRIX
from hw_profiles.runtimes.onnx_file import NamedTensor, signature

PAST_PREFIX = "past"
PREFILL_OF, DECODE_AT = "prefill of ", "decode at "
PROMPT, PAST = 128, 511  # that are timed unless told otherwise
MASKS = ("attention_mask", "mask")
POSITIONS = ("position_ids", "positions", "cache_position")
KEPT = ("num_logits_to_keep", "logits_to_keep")  # how many positions are answered
BRANCH = "use_cache_branch"  # of files that hold both ways
FEWEST_DIMS = 4  # of keys or values: batch, heads, positions, width in some order, or both in one tensor
VOCABULARY = 2  # where nothing says how many ids there are: 0 and 1 are

Array = NDArray[Any]
Dims = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Decoder:
    """A file of a decoder.

    Attributes:
        ids: what it reads: (batch, positions).
        caches: past keys and values.
        others: all other inputs.
        vocabulary: ids are below it.
    """

    ids: NamedTensor
    caches: tuple[NamedTensor, ...]
    others: tuple[NamedTensor, ...]
    vocabulary: int

    @property
    def batch(self) -> int | None:
        """Sequences of one inference; None where it takes any number."""
        size = self.ids.shape[0]
        return size if isinstance(size, int) else None

    def feeds(self, batch: int, sequence: int, past: int) -> dict[str, Array]:
        """Return what it reads where `sequence` positions follow `past` others, of `batch` sequences.

        Raises:
            ValueError: it is made for other sizes, or reads what is not known.
        """
        sizes = {name: size for name, size in zip(self.ids.shape, (batch, sequence), strict=True)}
        if wrong := [known for known, size in sizes.items() if isinstance(known, int) and known != size]:
            raise ValueError(
                f"{self.ids.name} is {_text(self.ids.shape)}: it is made for {wrong[0]}, asked for "
                f"{sizes[wrong[0]]}"
            )
        symbols = {name: size for name, size in sizes.items() if isinstance(name, str)}
        rng = np.random.default_rng(0)
        feeds = {self.ids.name: rng.integers(0, self.vocabulary, (batch, sequence)).astype(self.ids.dtype)}
        for cache in self.caches:
            shape, past_symbol = _cache_shape(cache, self.ids.shape[0], batch, past)
            feeds[cache.name] = _noise(shape, cache.dtype, rng)
            symbols |= {past_symbol: past} if past_symbol else {}
        feeds |= {each.name: _other(each, batch, sequence, past, symbols, rng) for each in self.others}
        return feeds


def read_decoder(model: bytes) -> Decoder | None:
    """Return what an ONNX file of a decoder with a cache reads; None where it is none."""
    read = signature(model)
    inputs, outputs = read or ((), ())
    caches = tuple(x for x in inputs if x.name.startswith(PAST_PREFIX) and len(x.shape) >= FEWEST_DIMS)
    ids = [
        x
        for x in inputs
        if x.dtype.kind == "i" and len(x.shape) == MATRIX and x.name not in (*MASKS, *POSITIONS)
    ]
    if not caches or len(ids) != 1:
        return None
    others = tuple(x for x in inputs if x not in (*ids, *caches))
    answers = outputs[0].shape[-1:] if outputs else ()
    vocabulary = next((size for size in answers if isinstance(size, int) and size > 0), VOCABULARY)
    return Decoder(ids[0], caches, others, vocabulary)


def _cache_shape(
    cache: NamedTensor, batch_dim: int | str | None, batch: int, past: int
) -> tuple[tuple[int, ...], str | None]:
    """Return the shape of a cache, and the name of its positions where they have one.

    Raises:
        ValueError: it cannot be told which of its sizes the positions are, or they are others.
    """
    open_dims = [i for i, size in enumerate(cache.shape) if not isinstance(size, int)]
    of_batch = [i for i in open_dims if batch_dim is not None and cache.shape[i] == batch_dim]
    if not of_batch and not isinstance(batch_dim, int):
        of_batch = open_dims[:1]
    places = [i for i in open_dims if i not in of_batch]
    if len(places) > 1:
        raise ValueError(
            f"{cache.name} is {_text(cache.shape)}: which of these are positions cannot be told; give what "
            "it reads with --inputs FILE.npz"
        )
    if not places and past not in cache.shape:
        raise ValueError(f"{cache.name} is {_text(cache.shape)}: it is made for another past than {past}")
    shape = [batch if i in of_batch else past if i in places else size for i, size in enumerate(cache.shape)]
    symbol = cache.shape[places[0]] if places else None
    return tuple(int(size or 0) for size in shape), symbol if isinstance(symbol, str) else None


def _other(
    each: NamedTensor,
    batch: int,
    sequence: int,
    past: int,
    symbols: Mapping[str, int],
    rng: np.random.Generator,
) -> Array:
    """Return a mask that hides nothing, positions in order, or noise of known sizes.

    Raises:
        ValueError: sizes of it are not known.
    """
    if each.name == BRANCH:
        return np.full([1] * len(each.shape), past > 0)
    if each.name in KEPT:
        return np.full([1] * len(each.shape), 1, each.dtype)
    if each.name in MASKS and len(each.shape) == MATRIX:
        return np.ones((batch, past + sequence), each.dtype)
    if each.name in POSITIONS:
        row = np.arange(past, past + sequence, dtype=each.dtype)
        return row if len(each.shape) == 1 else np.ascontiguousarray(np.broadcast_to(row, (batch, sequence)))
    shape = [symbols.get(size) if isinstance(size, str) else size for size in each.shape]
    if None in shape:
        raise ValueError(
            f"{each.name} is {_text(each.shape)}, which a decoder need not read; give what it reads with "
            "--inputs FILE.npz"
        )
    return _noise([int(size or 0) for size in shape], each.dtype, rng)


def _noise(shape: Sequence[int], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    return np.ones(shape, dtype) if prod(shape) else np.zeros(shape, dtype)


def _text(shape: Dims) -> str:
    return " x ".join("?" if size is None else str(size) for size in shape)


def scenarios(
    decoder: Decoder, batches: Sequence[int], prompt: int | None, past: int | None
) -> dict[tuple[str, int], dict[str, Array]]:
    """Return what a decoder reads in both scenarios of each batch size, by `prefill of N` or `decode at P`. A
    scenario that the file is not made for is left out where its size was not asked for.

    Raises:
        ValueError: it is made for neither, or not for what was asked for.
    """
    prompt_length, past_length = PROMPT if prompt is None else prompt, PAST if past is None else past
    asked = (
        (f"{PREFILL_OF}{prompt_length}", prompt_length, 0, prompt is not None),
        (f"{DECODE_AT}{past_length}", 1, past_length, past is not None),
    )
    feeds: dict[tuple[str, int], dict[str, Array]] = {}
    why = ""
    for batch in batches:
        for name, sequence, before, required in asked:
            try:
                feeds[name, batch] = decoder.feeds(batch, sequence, before)
            except ValueError as error:
                why = one_line(error)
                if required:
                    raise
    if not feeds:
        raise ValueError(why)
    return feeds


def tokens_of(scenario: str) -> int:
    """Return how many tokens of each sequence one inference is about; 1 of what is no decoder's.

    >>> tokens_of("prefill of 128"), tokens_of("decode at 511"), tokens_of("")
    (128, 1, 1)
    """
    return int(scenario.removeprefix(PREFILL_OF)) if scenario.startswith(PREFILL_OF) else 1
