"""Plots of the device: what low-bit formats change per layer, and how the profile predicts whole networks."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hw_profiles.graph.layer import Layer
from hw_profiles.profiles.latency_model import Calibration, WholeNetwork
from hw_profiles.profiles.profile import DeviceProfile
from nas.report import units
from nas.report.drawing import layer_format, layer_kind, square
from nas.report.plots import INK, Plot, Trace, axis_title, figure, format_colour, guide, points
from nas.report.search_figures import identity
from nas.report.units import TIMES

KIND_ORDER = (
    "stem",
    square(1),
    *(f"depthwise {square(side)}" for side in (3, 5, 7)),
    "linear",
    "add",
    "pool",
)


@dataclass(frozen=True)
class Speedup:
    """One layer in a low-bit format beside the same layer in fp32.

    Attributes:
        layer: in the low-bit format.
        fp32_s, low_s: medians in seconds.
    """

    layer: Layer
    fp32_s: float
    low_s: float

    @property
    def ratio(self) -> float:
        """Above 1 the low-bit format is faster."""
        return self.fp32_s / self.low_s


def speedups(profile: DeviceProfile) -> list[Speedup]:
    """Return every pair of the table that differs in its formats only."""
    medians = {
        layer: row.median_s
        for layer, row in profile.table.items()
        if row.error is None and row.median_s > 0 and not profile.unreliable(layer)
    }
    pairs = []
    for layer, median in medians.items():
        plain = layer.with_formats("fp32", "fp32")
        if not layer.is_conversion and layer != plain and plain in medians:
            pairs.append(Speedup(layer, medians[plain], median))
    return pairs


def speedup_plot(profile: DeviceProfile) -> Plot | None:
    """Plot fp32 time over low-bit time of every layer, by kind; None if the table holds no such pair."""
    pairs = speedups(profile)
    if not pairs:
        return None
    kinds = sorted({layer_kind(pair.layer) for pair in pairs}, key=_kind_rank)
    formats = sorted({layer_format(pair.layer) for pair in pairs})
    traces = [
        _speedup_trace(name, [p for p in pairs if layer_format(p.layer) == name], kinds) for name in formats
    ]
    drawn = figure(
        traces,
        {"type": "category", "categoryorder": "array", "categoryarray": kinds, "showgrid": False},
        {
            "title": axis_title("speed-up over fp32; below 1 slower"),
            "type": "log",
            "tickvals": _RATIOS,
            "ticksuffix": f"{TIMES} ",
        },
        shapes=[guide(y=1, colour=INK, dash="solid")],
        boxmode="group",
        showlegend=len(formats) > 1,
    )
    return Plot("speedups", "Speed-up of low-bit layers over fp32", _speedup_caption(pairs), drawn, 420)


_RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 10)


def _kind_rank(kind: str) -> tuple[int, str]:
    return (KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER), kind)


def _speedup_trace(number_format: str, pairs: Sequence[Speedup], kinds: Sequence[str]) -> Trace:
    ordered = sorted(pairs, key=lambda pair: kinds.index(layer_kind(pair.layer)))
    colour = format_colour(number_format)
    return {
        "type": "box",
        "name": number_format,
        "x": [layer_kind(pair.layer) for pair in ordered],
        "y": [pair.ratio for pair in ordered],
        "boxpoints": "all",
        "jitter": 0.6,
        "pointpos": 0,
        "marker": {"color": colour, "size": 4.5, "opacity": 0.65},
        "line": {"color": colour, "width": 1.3},
        "fillcolor": "rgba(0,0,0,0.03)",
        "text": [_pair_text(pair) for pair in ordered],
        "hoveron": "points",
        "hovertemplate": "%{text}<extra></extra>",
    }


def _shape_text(layer: Layer) -> str:
    """Return what a layer reads and gives; the batch goes without saying."""
    if layer.kind == layer.op:
        return "→".join(TIMES.join(map(str, x.shape[1:])) for x in (layer.inputs[0], layer.outputs[0]))
    channels, height, width = layer.in_shape
    return f"{channels}→{layer.out_channels} channels, {height}{TIMES}{width}, stride {layer.stride}"


def _pair_text(pair: Speedup) -> str:
    shape = _shape_text(pair.layer)
    fp32, low = (units.text("latency", seconds) for seconds in (pair.fp32_s, pair.low_s))
    times = f"fp32 {fp32}, {layer_format(pair.layer)} {low}: {pair.ratio:.2f}{TIMES}"
    return f"<b>{layer_kind(pair.layer)}</b> {shape}<br>{times}"


def _speedup_caption(pairs: Sequence[Speedup]) -> str:
    """Count the layers made slower, kinds first that lose most."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        by_kind[layer_kind(pair.layer)].append(pair.ratio)
    slower = {kind: sum(ratio < 1 for ratio in ratios) for kind, ratios in by_kind.items()}
    share = {kind: count / len(by_kind[kind]) for kind, count in slower.items()}
    losers = sorted((kind for kind in share if share[kind]), key=lambda kind: -share[kind])
    total = sum(slower.values())
    lead = f"Each dot is one layer shape. {total} of {len(pairs)} get slower than in fp32"
    detail = ", ".join(f"{slower[kind]} of {len(by_kind[kind])} {kind}" for kind in losers[:3])
    end = "; this is why the format is searched layer by layer." if total else "."
    return lead + (f": {detail}" if detail else "") + end


# -- validation of the profile ---------------------------------------------------------------------


def calibration_plot(profile: DeviceProfile) -> Plot | None:
    """Plot latencies of whole networks, from the profile and measured; None if the profile is not
    calibrated.
    """
    calibration = profile.calibration or Calibration()
    networks = sorted(calibration.networks, key=_calibration_group)
    if not networks:
        return None
    predicted_s = dict(zip(networks, calibration.predict_networks_s(networks).tolist(), strict=True))
    scale = units.scale_for("latency", [network.measured_s for network in networks])
    times = [scale(seconds) for network in networks for seconds in (network.measured_s, predicted_s[network])]
    traces = [identity([min(times), max(times)])]
    for (number_format, held_out), group in itertools.groupby(networks, key=_calibration_group):
        pairs = [(scale(network.measured_s), scale(predicted_s[network])) for network in group]
        traces.append(_calibration_trace(number_format, held_out, pairs, scale))
    drawn = figure(
        traces,
        {"title": axis_title(f"measured, {scale.unit}")},
        {"title": axis_title(f"from the profile, {scale.unit}")},
    )
    caption = "Filled: networks the profile has never seen. Open: those it was calibrated on."
    return Plot("calibration", "Whole-network latency: predicted against measured", caption, drawn, 420)


def _calibration_group(network: WholeNetwork) -> tuple[str, bool]:
    return network.precision, network.held_out


def _calibration_trace(
    number_format: str, held_out: bool, times: Sequence[tuple[float, float]], scale: units.Scale
) -> Trace:
    role = "held out" if held_out else "calibration"
    texts = [f"{number_format}: measured {x:.4g}, profile {y:.4g} {scale.unit}" for x, y in times]
    symbol = "circle" if held_out else "circle-open"
    x, y = zip(*times, strict=True)
    colour = format_colour(number_format)
    return points(f"{number_format}, {role}", x, y, texts, color=colour, symbol=symbol, size=9)
