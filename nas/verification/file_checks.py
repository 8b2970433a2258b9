"""What an exported ONNX file is and does, beside what its manifest says. The file is only ever loaded in a
process of its own.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from nas.checks.check import AnyInput, TextInput, agreement
from nas.checks.confined import Array, ConfinedError, Limits, confined
from nas.checks.engine import FileEngine, engine_for
from nas.checks.file_tasks import FileFacts
from nas.checks.parity import asked, input_of
from nas.export.manifest import Manifest
from nas.export.seal import CLAIMS
from nas.verification.common_checks import (
    SLACK,
    TRIAL_S,
    Claimed,
    Seen,
    check_facts,
    check_latency,
    check_memory,
    request_of,
    trial_s,
)
from nas.verification.finding import Finding, moved
from supernet.tasks.metric import main_metric
from supernet.tasks.task import Task, reads

Logits = NDArray[np.float32]
CHUNK_BYTES = 2**28  # of examples, or of their logits, that go to a process or come back at once


def check_file(
    model: Path,
    manifest: Manifest,
    claims: str | None,
    data: Task | None,
    *,
    latency: bool,
    device: str = "",
) -> Iterator[Finding]:
    """Yield everything about the ONNX file that can be looked at again.

    Args:
        claims: digest of the manifest's claims, which the file must have; None where the manifest is of a
            version without: then the file must have none.
        data: whose parts the main metric is measured on; None leaves that out.
        device: that runs it; empty takes what it was exported for.

    Raises:
        TrilobitError: it cannot be loaded or run, is no file of ours, or the data has other classes.
    """
    engine = engine_for(manifest.device, device)
    facts, logits = _examined(model, engine, manifest, manifest.input.made_up(manifest.answers.images))
    claimed = Claimed(
        claims, manifest.opset, manifest.parity.integer_kernels, manifest.versions, manifest.requires
    )
    inside = facts.metadata.get(CLAIMS)
    yield from check_facts(
        engine, claimed, Seen(inside, facts.opset, facts.integer_kernels, facts.exact_sums)
    )
    share, difference = agreement(logits, manifest.answers)
    now = f"{share:.1%} the same, logits within {difference:.2g}"
    yield Finding("answers", f"{manifest.answers.images} answers", now, share >= asked(engine.runtime))
    if data is not None:
        yield from _qualities(model, engine, manifest, data, facts.run_s)
    if manifest.memory:
        yield check_memory(model, engine, manifest.memory)
    if latency and manifest.latency is not None:
        task = "nas.checks.file_tasks:file_latency"
        yield check_latency(
            model, engine, manifest.latency, manifest.device, task=task, request={}, run_s=facts.run_s
        )


def _examined(
    model: Path, engine: FileEngine, manifest: Manifest, examples: Array
) -> tuple[FileFacts, Logits]:
    """Return what a file is, and its (n, ..., classes) logits of examples as a file like that takes them.

    Raises:
        TrilobitError: it cannot be loaded or run, or is no file of ours.
    """
    limits = Limits(trial_s(manifest.latency, len(examples)))
    try:
        document, arrays = confined(
            "nas.checks.file_tasks:examine_file",
            request_of(model, engine),
            limits=limits,
            arrays={"images": examples},
        )
        facts = parse(FileFacts, document)
    except (ConfinedError, MismatchError) as error:
        raise TrilobitError(f"{model}: {engine.title} cannot load it: {error}") from None
    _require_ours(model, manifest, facts)
    return facts, _logits(model, arrays, len(examples), manifest)


def _require_ours(model: Path, manifest: Manifest, facts: FileFacts) -> None:
    named = facts.metadata.get("trilobit.id", "nothing")
    if named != manifest.id:
        raise TrilobitError(
            f"{model}: calls itself {named[:40]}, its manifest {manifest.id}; not exported by `nas`"
        )
    stated = manifest.input
    if facts.dtype != stated.dtype or facts.shape[1:] != stated.file_shape:
        raise TrilobitError(
            f"{model}: reads {facts.dtype} {facts.shape[1:]} where its manifest says {stated.dtype} "
            f"{stated.file_shape}; not exported by `nas`"
        )


def _logits(model: Path, arrays: Mapping[str, Array], examples: int, manifest: Manifest) -> Logits:
    logits, classes = arrays.get("logits"), len(manifest.classes)
    shape = manifest.input.answer_shape(examples, classes)
    if logits is None or logits.shape != shape or logits.dtype != np.float32:
        raise TrilobitError(f"{model}: gives no logits of {classes} classes for {examples} examples")
    return logits


def require_classes(manifest: Manifest, data: Task) -> None:
    """Refuse data of another kind, or of other classes.

    Raises:
        TrilobitError: it is.
    """
    kind = "tokens" if isinstance(manifest.input, TextInput) else "images"
    if reads(data) != kind:
        raise TrilobitError(
            f"--data: {data.name} is {reads(data)}, and the network reads {kind}; give the data it was made "
            "for"
        )
    if isinstance(manifest.input, TextInput) and data.channels != manifest.input.vocabulary:
        raise TrilobitError(
            f"--data: {data.name} has {data.channels} different tokens, and the network knows "
            f"{manifest.input.vocabulary}; give the data it was made for"
        )
    if data.classes != manifest.classes:
        raise TrilobitError(
            f"--data: its classes are {', '.join(data.classes[:5])}..., the network's "
            f"{', '.join(manifest.classes[:5])}...; give the data it was made for"
        )


def _qualities(
    model: Path, engine: FileEngine, manifest: Manifest, data: Task, run_s: float
) -> Iterator[Finding]:
    require_classes(manifest, data)
    accuracy, name = manifest.accuracy, main_metric(data).name
    if name != manifest.metric:
        raise TrilobitError(
            f"--data: {data.name} is judged by {name}, and the network was by {manifest.metric}; give the "
            "data it was made for"
        )
    stated, pixels = manifest.input, manifest.input.dtype == "uint8"
    for what, part, then, of in (
        ("test", data.test, accuracy.test, accuracy.n),
        ("search-validation", data.validation, accuracy.validation, manifest.parity.images),
    ):
        total = 0.0
        for some in chunks(part, stated, len(manifest.classes)):
            inputs = input_of(some, data, size=stated.size, pixels=pixels)
            logits = _outputs(model, engine, manifest, inputs, run_s * len(some))
            total += float(data.scores(logits, some).sum())
        words = f"{what} {name.replace('_', ' ')}"
        yield moved(words, then, total / len(part), examples=len(part), of=of, metric=name)


def _outputs(model: Path, engine: FileEngine, manifest: Manifest, inputs: Array, expected_s: float) -> Logits:
    """Return (n, ..., classes) logits of examples as the file takes them.

    Raises:
        TrilobitError: the file does not give them, or not in time.
    """
    limits = Limits(TRIAL_S + SLACK * expected_s)
    try:
        _, arrays = confined(
            "nas.checks.file_tasks:file_logits",
            request_of(model, engine),
            limits=limits,
            arrays={"images": inputs},
        )
    except ConfinedError as error:
        raise TrilobitError(f"{model}: {engine.title} cannot run it: {error}") from None
    return _logits(model, arrays, len(inputs), manifest)


def chunks(examples: Any, stated: AnyInput, classes: int = 1) -> Iterator[Any]:
    """Yield examples in parts that are small enough to hand over, and whose logits are to hand back."""
    most = max(math.prod(stated.file_shape), math.prod(stated.answer_shape(1, classes)))
    count = max(1, CHUNK_BYTES // (4 * most))
    for start in range(0, len(examples), count):
        yield examples[start : start + count]
