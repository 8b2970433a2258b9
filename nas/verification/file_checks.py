"""What an exported ONNX file is and does, beside what its manifest says. The file is only ever loaded in a
process of its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from nas.checks.check import Input, agreement, made_up_images
from nas.checks.confined import Array, ConfinedError, Limits, confined
from nas.checks.engine import FileEngine, file_engine
from nas.checks.file_tasks import FileFacts
from nas.checks.parity import AGREEMENT, input_of
from nas.export.manifest import Manifest
from nas.export.seal import CLAIMS
from nas.verification.common_checks import (
    LONGEST_TRIAL_S,
    SLACK,
    TRIAL_S,
    Claimed,
    Seen,
    check_facts,
    check_latency,
    request_of,
)
from nas.verification.finding import Finding, moved
from supernet.data.images import Images
from supernet.tasks.image_classification import ImageClassification

Logits = NDArray[np.float32]
CHUNK_BYTES = 2**28  # of images that go to a process at once


def check_file(
    model: Path, manifest: Manifest, claims: str | None, data: ImageClassification | None, *, latency: bool
) -> Iterator[Finding]:
    """Yield everything about the ONNX file that can be looked at again.

    Args:
        claims: digest of the manifest's claims, which the file must have; None where the manifest is of a
            version without: then the file must have none.
        data: whose parts accuracy is measured on; None leaves that out.

    Raises:
        TrilobitError: it cannot be loaded or run, is no file of ours, or the data has other classes.
    """
    image = manifest.input
    engine = file_engine(manifest.device)
    pixels = made_up_images(manifest.answers.images, image.shape)
    facts, logits = _examined(model, engine, manifest, pixels if image.pixels else image.normalised(pixels))
    claimed = Claimed(
        claims, manifest.opset, manifest.parity.integer_kernels, manifest.versions, manifest.requires
    )
    inside = facts.metadata.get(CLAIMS)
    yield from check_facts(
        engine, claimed, Seen(inside, facts.opset, facts.integer_kernels, facts.exact_sums)
    )
    share, difference = agreement(logits, manifest.answers)
    now = f"{share:.1%} the same, logits within {difference:.2g}"
    yield Finding("answers", f"{manifest.answers.images} answers", now, share >= AGREEMENT)
    if data is not None:
        yield from _accuracies(model, engine, manifest, data, facts.run_s)
    if latency:
        task = "nas.checks.file_tasks:file_latency"
        yield check_latency(
            model, engine, manifest.latency, manifest.device, task=task, request={}, run_s=facts.run_s
        )


def _examined(model: Path, engine: FileEngine, manifest: Manifest, images: Array) -> tuple[FileFacts, Logits]:
    """Return what a file is, and its (n, classes) logits of images as a file like that takes them.

    Raises:
        TrilobitError: it cannot be loaded or run, or is no file of ours.
    """
    claimed_s = SLACK * manifest.latency.median_s * len(images)
    limits = Limits(min(TRIAL_S + claimed_s, LONGEST_TRIAL_S))
    try:
        document, arrays = confined(
            "nas.checks.file_tasks:examine_file",
            request_of(model, engine),
            limits=limits,
            arrays={"images": images},
        )
        facts = parse(FileFacts, document)
    except (ConfinedError, MismatchError) as error:
        raise TrilobitError(f"{model}: {engine.title} cannot load it: {error}") from None
    _require_ours(model, manifest, facts)
    return facts, _logits(model, arrays, len(images), len(manifest.classes))


def _require_ours(model: Path, manifest: Manifest, facts: FileFacts) -> None:
    named = facts.metadata.get("trilobit.id", "nothing")
    if named != manifest.id:
        raise TrilobitError(
            f"{model}: calls itself {named[:40]}, its manifest {manifest.id}; not exported by `nas`"
        )
    h, w, c = manifest.input.shape
    image = (h, w, c) if manifest.input.pixels else (c, h, w)
    if facts.pixels != manifest.input.pixels or facts.shape[1:] != image:
        raise TrilobitError(
            f"{model}: reads {facts.shape[1:]} where its manifest says {image}; not exported by `nas`"
        )


def _logits(model: Path, arrays: Mapping[str, Array], images: int, classes: int) -> Logits:
    logits = arrays.get("logits")
    if logits is None or logits.shape != (images, classes) or logits.dtype != np.float32:
        raise TrilobitError(f"{model}: gives no logits of {classes} classes for {images} images")
    return logits


def require_classes(manifest: Manifest, data: ImageClassification) -> None:
    """Refuse data of other classes.

    Raises:
        TrilobitError: it has.
    """
    if data.classes != manifest.classes:
        raise TrilobitError(
            f"--data: its classes are {', '.join(data.classes[:5])}..., the network's "
            f"{', '.join(manifest.classes[:5])}...; give the data it was made for"
        )


def _accuracies(
    model: Path, engine: FileEngine, manifest: Manifest, data: ImageClassification, run_s: float
) -> Iterator[Finding]:
    require_classes(manifest, data)
    accuracy = manifest.accuracy
    for what, part, then, of in (
        ("test accuracy", data.test, accuracy.test, accuracy.n),
        ("search-validation accuracy", data.validation, accuracy.validation, manifest.parity.images),
    ):
        right = 0
        for some in chunks(part, manifest.input):
            images = input_of(some, data, size=manifest.input.shape[0], pixels=manifest.input.pixels)
            labels = _predictions(model, engine, manifest, images, run_s * len(some))
            right += int((labels == some.labels).sum())
        yield moved(what, then, right / len(part), images=len(part), of=of)


def _predictions(
    model: Path, engine: FileEngine, manifest: Manifest, images: Array, expected_s: float
) -> NDArray[np.int64]:
    """Return (n,) labels of images as the file takes them.

    Raises:
        TrilobitError: the file does not give them, or not in time.
    """
    limits = Limits(TRIAL_S + SLACK * expected_s)
    try:
        _, arrays = confined(
            "nas.checks.file_tasks:file_logits",
            request_of(model, engine),
            limits=limits,
            arrays={"images": images},
        )
    except ConfinedError as error:
        raise TrilobitError(f"{model}: {engine.title} cannot run it: {error}") from None
    logits = _logits(model, arrays, len(images), len(manifest.classes))
    return np.asarray(logits.argmax(axis=1))


def chunks(images: Images, image: Input) -> Iterator[Images]:
    """Yield images in parts that are small enough to hand over."""
    count = max(1, CHUNK_BYTES // (4 * int(np.prod(image.shape))))
    for start in range(0, len(images), count):
        yield images[start : start + count]
