"""Fronts of tuned models, of made-up figures."""

from collections.abc import Mapping, Sequence

from nas.run.front_document import Predicted
from nas.run.tuned_document import (
    MeasuredLatency,
    MetricValue,
    PartQuality,
    Reference,
    TunedFront,
    TunedMetric,
    TunedModel,
    TunedNetwork,
    TunedUnit,
    UnitShare,
)

ORIGINAL_S = 0.02
METRICS = (
    TunedMetric("kl", "nats", "min", "mean divergence"),
    TunedMetric("agreement", "fraction", "max", "share of examples with the answer of the original"),
    TunedMetric("flips", "fraction", "min", "share of examples right before, wrong now"),
)


def latency(ratio: float) -> MeasuredLatency:
    """Return what a file took that takes this share of the original's time."""
    return MeasuredLatency(
        ratio * ORIGINAL_S, 0.01 * ratio * ORIGINAL_S, ratio, 0.01, (ratio * ORIGINAL_S,) * 3
    )


def quality(kl: float) -> PartQuality:
    """Return what a file's answers are like that diverges so much."""
    figures = {"kl": MetricValue(kl, kl / 10), "agreement": MetricValue(1 - kl, 0.01)}
    return PartQuality(100, {**figures, "flips": MetricValue(kl / 2)})


def network(
    name: str,
    policy: Sequence[str],
    ratio: float,
    kl: float,
    left: Mapping[str, UnitShare] | None = None,
) -> TunedNetwork:
    """Return a file in which these units are in int8."""
    return TunedNetwork(
        id=name,
        genes=(0,),
        policy=dict.fromkeys(policy, "int8"),
        size_bytes=1e6 - 1e5 * len(policy),
        predicted={"latency": Predicted(1.02 * ratio * ORIGINAL_S)},
        choosing=quality(kl),
        latency=latency(ratio),
        judging=quality(kl),
        units={unit: UnitShare("int8", 1e-3, kl / 3) for unit in policy},
        left=dict(left or {}),
    )


def front(*, units: int = 4, candidates: Sequence[TunedNetwork] = ()) -> TunedFront:
    """Return a front; every second unit had a choice."""
    made = tuple(
        TunedUnit(f"/layer{i}", "Conv", ("fp32", "int8"), alone={"int8": 0.002})
        if i % 2 == 0
        else TunedUnit(f"/layer{i}", "Sin<b>", ("fp32",), refused={"int8": "no <kernel> for Sin"})
        for i in range(units)
    )
    references = (
        Reference("defaults", "ONNX Runtime's defaults", 4e5, latency(1.1), quality(0.4), quality(0.4)),
        Reference("dynamic", "dynamic int8", error="Non-zero status <code>"),
    )
    names = [unit.name for unit in made if len(unit.options) > 1]
    return TunedFront(
        model=TunedModel("/somewhere/mine.onnx", "0" * 64, 1e6, {"n": 1}),
        device="ort-cpu-1t",
        instruction_set="AVX2",
        fingerprint="0123",
        metrics=METRICS,
        objectives=(),
        units=made,
        original=Reference("fp32", "the original in fp32", 1e6, latency(1.0), quality(0.0), quality(0.0)),
        references=references,
        candidates=tuple(candidates)
        or (
            network("aaa", names, 0.6, 0.1),
            network("abb", names[:-1], 0.7, 0.003),
            network("ccc", (), 1.0, 0.0),
        ),
        evaluated=(network("ddd", names[:1], 0.9, 0.01),),
        rounds=(),
        evaluations=60,
        quality_tau=0.9,
    )
