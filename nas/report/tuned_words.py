"""Figures of tuned files as people read them."""

from nas.report import units
from nas.run.tuned_document import TunedMetric
from nas.search.units import unit_of

FIRST, LAST = 13, 30  # characters of a unit's name that are shown: exporters join names of what they fuse
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


def alone_text(metric: TunedMetric, number_format: str, value: float) -> str:
    """Return what the answers are like where one unit alone has a format.

    >>> alone_text(TunedMetric("snr", "dB", "max"), "int8", 31.4)
    'int8 alone leaves 31.4 dB of snr'
    """
    verb = "costs" if metric.direction == "min" else "leaves"
    return f"{number_format} alone {verb} {metric_text(metric, value)} of {metric.name}"
