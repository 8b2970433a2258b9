"""`Fidelity`: how good a changed network is, by what the original says; right answers add to it.

What outputs are is recognised from what the original says of samples. Metrics by what they are of:

| outputs | metrics |
|---|---|
| class scores, class probabilities | `kl`, `agreement`, `snr`, `worst_class` |
| the same, with labels | `accuracy`, `flips`, `calibration` too |
| the same at every step of a sequence | `kl`, `agreement` of what is spelled, `steps`, `snr` |
| independent probabilities | `kl`, `agreement` of all at one half, `snr` |
| whole numbers | `agreement` |
| anything else | `snr` |

Of several outputs divergences are added, decisions must all agree, and the noisiest counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean
from supernet.data.samples import Samples
from supernet.tasks.class_metrics import calibration_error, worst_class
from supernet.tasks.divergence import (
    as_steps,
    choices,
    divergence,
    log_probabilities,
    same_choices,
    signal_to_noise,
)
from supernet.tasks.metric import (
    ACCURACY,
    AGREEMENT,
    CALIBRATION,
    FLIPS,
    KL,
    SNR,
    STEPS,
    WORST_CLASS,
    Direction,
    Metric,
)
from supernet.tasks.output_roles import OutputRole, Role, recognise_output
from supernet.tasks.own_metric import OwnMetric, own_metric

Outputs = Mapping[str, Any]  # by output: (n, ...) array, or n arrays of different sizes
PerSample = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fidelity:
    """What networks that were made from one are compared by.

    Attributes:
        outputs: what each output is.
        metrics: what `evaluate` gives, the main one first: the user's own, else the divergence, else the
            signal-to-noise ratio.
        answered: the output that labels are right answers of; empty without labels.
        own: the user's metric.
        notes: what was recognised, and why labels are not used.
    """

    outputs: tuple[OutputRole, ...]
    metrics: tuple[Metric, ...]
    answered: str = ""
    own: OwnMetric | None = None
    notes: tuple[str, ...] = ()

    def evaluate(self, outputs: Outputs, examples: Samples, original: Outputs) -> dict[str, float]:
        """Return the metrics by name.

        Args:
            outputs: by name what a network says of n examples, row i what it says of example i.
            examples: n of them.
            original: what the original says of them.

        Raises:
            TrilobitError: the user's own metric raises.
        """
        return self.assess(outputs, examples, original)[0]

    def assess(
        self, outputs: Outputs, examples: Samples, original: Outputs
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return the metrics by name, and the standard errors of those that are means over samples.

        Raises:
            TrilobitError: as `evaluate`.
        """
        aligned, reference = _aligned(self.outputs, outputs, original)
        parts = self._of_samples(aligned, reference, examples)
        values = {name: float(each.mean()) for name, each in parts.items()}
        values |= self._of_all(aligned, reference, examples)
        own = self.own.evaluate(outputs, original, examples) if self.own else {}
        values |= own
        shares = {metric.name for metric in self.metrics if metric.share}
        errors = {
            name: _standard_error(each, share=name in shares)
            for name, each in parts.items()
            if name not in own
        }
        return {metric.name: values[metric.name] for metric in self.metrics}, errors

    def _of_samples(self, outputs: Outputs, original: Outputs, examples: Samples) -> dict[str, PerSample]:
        """Return (n,) each sample's part of the metrics that are means of those."""
        decided = [output for output in self.outputs if output.role is not Role.VALUES]
        parts: dict[str, list[PerSample]] = {KL.name: [], AGREEMENT.name: [], STEPS.name: []}
        for output in decided:
            a, b = (choices(arrays[output.name], output) for arrays in (outputs, original))
            parts[AGREEMENT.name].append(same_choices(a, b, output))
            if output.role is not Role.DECISIONS:
                parts[KL.name].append(divergence(outputs[output.name], original[output.name], output))
            if output.sequence:
                parts[STEPS.name].append((a == b).mean(axis=1))
        values = {
            name: np.sum(arrays, axis=0) if name == KL.name else np.min(arrays, axis=0)
            for name, arrays in parts.items()
            if arrays
        }
        return values | self._of_answers(outputs, original, examples)

    def _of_answers(self, outputs: Outputs, original: Outputs, examples: Samples) -> dict[str, PerSample]:
        if not self.answered or examples.labels is None:
            return {}
        right, originally_right = (
            choices(arrays[self.answered], self._role(self.answered))[:, 0] == examples.labels
            for arrays in (outputs, original)
        )
        return {
            ACCURACY.name: right.astype(np.float64),
            FLIPS.name: (originally_right & ~right).astype(np.float64),
        }

    def _of_all(self, outputs: Outputs, original: Outputs, examples: Samples) -> dict[str, float]:
        """Return the metrics that are of all samples together."""
        values = {}
        numbers = [output.name for output in self.outputs if output.role is not Role.DECISIONS]
        if numbers:
            values[SNR.name] = min(signal_to_noise(outputs[name], original[name]) for name in numbers)
        if (name := self.answered or _chosen_once(self.outputs)) and self._has(WORST_CLASS):
            output = self._role(name)
            labels = examples.labels if self.answered else None
            answers = choices(original[name], output)[:, 0] if labels is None else labels
            values[WORST_CLASS.name] = worst_class(choices(outputs[name], output)[:, 0], answers)
        if self.answered and examples.labels is not None:
            output = self._role(self.answered)
            logs = log_probabilities(as_steps(outputs[self.answered], output)[:, 0], output.role)
            values[CALIBRATION.name] = calibration_error(logs, examples.labels)
        return values

    def _role(self, name: str) -> OutputRole:
        return next(output for output in self.outputs if output.name == name)

    def _has(self, metric: Metric) -> bool:
        return any(metric.name == own.name for own in self.metrics)

    def __str__(self) -> str:
        """Return what was recognised, in one line."""
        return "; ".join((*map(str, self.outputs), *self.notes))


def fidelity_of(
    original: Outputs,
    samples: Samples,
    *,
    roles: Mapping[str, Role] | None = None,
    metric: str = "",
    direction: Direction | None = None,
) -> Fidelity:
    """Return how networks are compared with one, by what it says of samples.

    Args:
        original: by output what it says, (n, ...) or n arrays.
        roles: what the user says of outputs, by name.
        metric: of the user's own, `module:function`: function(outputs, original, samples) gives a number, or
            several by name, the main one first.
        direction: of that metric, where the function does not say it.

    Raises:
        TrilobitError: the original gives nothing or what is not a number, labels that there are no classes
            for, an output that there is not, or the metric raises.
    """
    require_numbers(original, samples)
    if strange := sorted(set(roles or {}) - set(original)):
        raise TrilobitError(
            f"no output {strange[0]!r}; outputs: {', '.join(original)}{did_you_mean(strange[0], original)}"
        )
    classes = len(samples.classes) or (0 if samples.labels is None else int(samples.labels.max()) + 1)
    outputs = tuple(
        _recognised(name, array, classes, (roles or {}).get(name)) for name, array in original.items()
    )
    answered, note = _answered(outputs, samples)
    own = own_metric(metric, direction, original, samples) if metric else None
    stated = tuple(own.metrics) if own else ()
    names = {name.name for name in stated}
    builtin = tuple(known for known in _metrics_of(outputs, answered) if known.name not in names)
    return Fidelity(outputs, stated + builtin, answered, own, (note,) if note else ())


def require_numbers(original: Outputs, samples: Samples) -> None:
    """Raise unless the original gives numbers for every sample.

    Raises:
        TrilobitError: it gives nothing, or NaN: names output and sample.
    """
    if not original:
        raise TrilobitError("this network gives nothing: it has no outputs")
    for name, arrays in original.items():
        for row, array in enumerate(arrays):
            values = np.asarray(array)
            if values.dtype.kind == "f" and np.isnan(values).any():
                sample = samples.names[row] if samples.names else f"{row}"
                raise TrilobitError(
                    f"output {name} of the original is NaN in fp32 for sample {sample}: there is nothing to "
                    "compare with; is the preprocessing the model's own?"
                )


def _recognised(name: str, arrays: Any, classes: int, said: Role | None) -> OutputRole:
    if len({np.shape(array) for array in arrays}) > 1:  # things that are found in a sample, of any number
        decided = np.asarray(arrays[0]).dtype.kind != "f"
        return OutputRole(name, Role.DECISIONS if decided else Role.VALUES)
    array = _stacked(arrays)
    made = recognise_output(name, array, classes=classes)
    if said is None or said is made.role:
        return made
    count = array.shape[-1]
    steps = int(np.prod(array.shape[1:])) // count if said in (Role.SCORES, Role.PROBABILITIES) else 1
    classified = said in (Role.SCORES, Role.PROBABILITIES)
    return OutputRole(name, said, -1, count if classified else 0, steps)


def _answered(outputs: Sequence[OutputRole], samples: Samples) -> tuple[str, str]:
    """Return the output that labels are of, and why there is none."""
    if samples.labels is None:
        return "", ""
    once = [output for output in outputs if output.classified and output.steps == 1]
    if not once:
        return "", "labels are not used: no output says one class of a sample"
    most = int(samples.labels.max())
    for output in once:
        if len(samples.classes) == output.classes or (not samples.classes and most < output.classes):
            return output.name, ""
    if samples.classes:
        return "", (
            f"folders are not taken for labels: {len(samples.classes)} of them, and {once[0].name} tells "
            f"{once[0].classes} classes apart; --labels FILE names those"
        )
    raise TrilobitError(
        f"labels up to {most}, and output {once[0].name} tells {once[0].classes} classes apart, from 0 on"
    )


def _metrics_of(outputs: Sequence[OutputRole], answered: str) -> tuple[Metric, ...]:
    """Return what can be said of these outputs, the main metric first."""
    probable = any(output.role not in (Role.VALUES, Role.DECISIONS) for output in outputs)
    decided = any(output.role is not Role.VALUES for output in outputs)
    available = {
        KL: probable,
        SNR: any(output.role is not Role.DECISIONS for output in outputs),
        AGREEMENT: decided,
        STEPS: any(output.sequence for output in outputs),
        ACCURACY: bool(answered),
        FLIPS: bool(answered),
        CALIBRATION: bool(answered),
        WORST_CLASS: bool(answered or _chosen_once(outputs)),
    }
    return tuple(metric for metric, there in available.items() if there)


def _chosen_once(outputs: Sequence[OutputRole]) -> str:
    """Return the first output that says one class of a sample; empty where none does."""
    return next((output.name for output in outputs if output.classified and output.steps == 1), "")


def _stacked(arrays: Any) -> NDArray[Any]:
    """Return (n, ...) one array; samples of different sizes flat, filled up with zeros."""
    if isinstance(arrays, np.ndarray) and arrays.dtype != object:
        return arrays
    rows = [np.asarray(array) for array in arrays]
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else _filled(rows, 0)


def _filled(rows: Sequence[NDArray[Any]], least: int) -> NDArray[Any]:
    longest = max(least, *(row.size for row in rows))
    filled = np.zeros((len(rows), longest), rows[0].dtype)
    for flat, row in zip(filled, rows, strict=True):
        flat[: row.size] = row.ravel()
    return filled


def _aligned(
    roles: Sequence[OutputRole], outputs: Outputs, original: Outputs
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return outputs of both networks as arrays of one shape each; where a network finds more things in a
    sample than the other, what is missing counts as zero.
    """
    aligned: tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]] = ({}, {})
    for role in roles:
        pair = [_stacked(arrays[role.name]) for arrays in (outputs, original)]
        if pair[0].shape != pair[1].shape:
            longest = max(int(np.prod(array.shape[1:])) for array in pair)
            pair = [_filled(array, longest) for array in pair]  # type: ignore[arg-type]
        for arrays, array in zip(aligned, pair, strict=True):
            arrays[role.name] = array
    return aligned


def _standard_error(each: PerSample, *, share: bool) -> float:
    """Return the standard error of a mean; of a share that of its binomial distribution."""
    mean = float(each.mean())
    if not np.isfinite(mean):
        return np.inf
    variance = mean * (1 - mean) if share else float(each.var(ddof=1)) if len(each) > 1 else 0.0
    return float(np.sqrt(variance / len(each)))
