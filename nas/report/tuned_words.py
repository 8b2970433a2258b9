"""Figures of tuned files as people read them."""

from collections.abc import Mapping

from nas.report import units
from nas.run.tuned_document import MetricValue, TunedFront, TunedMetric
from nas.search.units import unit_of

FIRST, LAST = 13, 30  # characters of a unit's name that are shown: exporters join names of what they fuse
SPACE = "\N{NO-BREAK SPACE}"
SMALLEST = 1e-3  # of what is no share: less is written with an exponent


def metric_text(metric: TunedMetric, value: float) -> str:
    """Return a value of a metric with its unit.

    >>> metric_text(TunedMetric("flips", "fraction", "min"), 0.0005)
    '0.05 %'
    >>> metric_text(TunedMetric("kl", "nats", "min"), 0.00012)
    '1.2e-04 nats'
    """
    if metric.unit == "fraction" or not value or abs(value) >= SMALLEST:
        return unit_of(metric.unit).text(value)
    return f"{value:.1e} {metric.unit}".rstrip()


def known_metrics(front: TunedFront) -> list[TunedMetric]:
    """Return the main metric, and those of the others that everybody knows."""
    return [front.metric, *(m for m in front.metrics[1:] if m.name in ("agreement", "accuracy"))]


def heading(metric: TunedMetric) -> str:
    """Return what stands above a column of `figure_text`."""
    unit = "%" if metric.unit == "fraction" else metric.unit
    return ", ".join(filter(None, (metric.name.replace("_", " "), unit)))


def figure_text(metric: TunedMetric, figure: MetricValue) -> str:
    """Return a value with its standard error, in the unit of the column's heading.

    >>> figure_text(TunedMetric("agreement", "fraction", "max"), MetricValue(0.9712, 0.0026))
    '97.12\N{NO-BREAK SPACE}\N{PLUS-MINUS SIGN}\N{NO-BREAK SPACE}0.26'
    """
    if metric.unit == "fraction":
        value, error = f"{100 * figure.value:.2f}", f"{100 * (figure.std or 0.0):.2f}"
    else:
        value, error = f"{figure.value:.3g}", f"{figure.std or 0.0:.2g}"
    return f"{value}{SPACE}±{SPACE}{error}" if figure.std else value


def short_name(name: str) -> str:
    """Return a name with its middle left out where it is long: the end tells units apart.

    >>> short_name("/features/1/conv/Conv")
    '/features/1/conv/Conv'
    >>> short_name("model/activation/Relu;model/batch_normalization/FusedBatchNorm;model/conv2d_1/Conv2D")
    'model/activat…atchNorm;model/conv2d_1/Conv2D'
    """
    if len(name) <= FIRST + 1 + LAST:
        return name
    return f"{name[:FIRST]}\N{HORIZONTAL ELLIPSIS}{name[-LAST:]}"


def error_text(metric: TunedMetric, error: float) -> str:
    """Return how much answers differ from the original's, by the metric that is predicted: of a ratio in dB
    the noise as a share of the signal, of a share of right ones that of wrong ones.

    >>> error_text(TunedMetric("snr", "dB", "max"), 0.01)
    '1.00 % noise'
    """
    if metric.unit == "dB":
        return f"{units.digits(100 * error)} % noise"
    return f"{metric_text(metric, error)} of {metric.name}"


def alone_text(metric: TunedMetric, alone: Mapping[str, float]) -> str:
    """Return what the answers are like where one unit alone has a format, by format; empty without any.

    >>> alone_text(TunedMetric("kl", "nats", "min"), {"int8": 0.00025, "int2": 0.28})
    'As the only one, int8 costs 2.5e-04 nats of kl, int2 0.28 nats.'
    >>> alone_text(TunedMetric("snr", "dB", "max"), {"int8": 31.4})
    'As the only one, int8 leaves 31.4 dB of snr.'
    """
    parts = [f"{name} {metric_text(metric, value)}" for name, value in alone.items()]
    if not parts:
        return ""
    verb = "costs" if metric.direction == "min" else "leaves"
    first = parts[0].replace(" ", f" {verb} ", 1)
    return f"As the only one, {', '.join([f'{first} of {metric.name}', *parts[1:]])}."
