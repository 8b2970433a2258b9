"""What a tuned network's file is and does, beside what its manifest says. The file is only ever loaded in a
process of its own.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.engine import FileEngine, engine_for
from nas.checks.examples import SHARE, agreement
from nas.checks.network_tasks import NetworkFacts
from nas.export.seal import CLAIMS
from nas.export.tuned_manifest import TunedManifest
from nas.verification.common_checks import (
    Claimed,
    Seen,
    check_facts,
    check_latency,
    check_memory,
    request_of,
    trial_s,
)
from nas.verification.finding import Finding
from nas.verification.tuned_quality import check_quality


def check_tuned(
    model: Path, manifest: TunedManifest, claims: str, *, latency: bool, samples: str = "", device: str = ""
) -> Iterator[Finding]:
    """Yield everything about the ONNX file that can be looked at again.

    Args:
        claims: digest of the manifest's claims, which the file must have.
        samples: source of what quality is measured on; empty leaves that out.
        device: that runs it; empty takes what it was exported for.

    Raises:
        TrilobitError: it cannot be loaded or run, or is no file of ours.
    """
    engine = engine_for(manifest.device, device)
    facts = _examined(model, engine, manifest)
    claimed = Claimed(claims, manifest.opset, manifest.kernels.integer, manifest.versions, manifest.requires)
    seen = Seen(facts.metadata.get(CLAIMS), facts.opset, facts.integer_kernels, facts.exact_sums)
    yield from check_facts(engine, claimed, seen)
    yield _answers(manifest, facts)
    if samples:
        yield from check_quality(model, manifest, engine, samples)
    if manifest.memory:
        yield check_memory(model, engine, manifest.memory)
    if latency and manifest.latency is not None:
        request = {"inputs": _inputs(manifest)}
        task = "nas.checks.network_tasks:network_latency"
        yield check_latency(
            model, engine, manifest.latency, manifest.device, task=task, request=request, run_s=facts.run_s
        )


def _examined(model: Path, engine: FileEngine, manifest: TunedManifest) -> NetworkFacts:
    """Return what a file is, and what it gives for the examples of its manifest.

    Raises:
        TrilobitError: it cannot be loaded or run, or is no file of ours.
    """
    answers = manifest.answers
    examples = answers.examples if answers else 0
    limits = Limits(trial_s(manifest.latency, examples))
    try:
        request = request_of(model, engine, inputs=_inputs(manifest), examples=examples)
        document, _ = confined("nas.checks.network_tasks:examine_network", request, limits=limits)
        facts = parse(NetworkFacts, document)
    except (ConfinedError, MismatchError) as error:
        raise TrilobitError(f"{model}: {engine.title} cannot load it: {error}") from None
    named = facts.metadata.get("trilobit.id", "nothing")
    if named != manifest.id:
        raise TrilobitError(
            f"{model}: calls itself {named[:40]}, its manifest {manifest.id}; not exported by `nas`"
        )
    for what in ("inputs", "outputs"):
        now, then = (", ".join(map(str, getattr(noun, what))) for noun in (facts, manifest))
        if now != then:
            raise TrilobitError(
                f"{model}: its {what} are {now}, its manifest says {then}; not exported by `nas`"
            )
    return facts


def _inputs(manifest: TunedManifest) -> list[dict[str, Any]]:
    return [asdict(stated) for stated in manifest.answers.inputs] if manifest.answers else []


def _answers(manifest: TunedManifest, facts: NetworkFacts) -> Finding:
    then = manifest.answers
    if then is None:
        return Finding("answers", "none are in the manifest", "not looked at", None)
    if facts.answers is None:
        return Finding("answers", f"to {then.examples} examples", "it does not read such", False)
    share, difference = agreement(facts.answers, then)
    now = f"{share:.1%} the same, at most {difference:.2%} of an answer apart"
    return Finding("answers", f"to {then.examples} examples", now, share >= SHARE)
