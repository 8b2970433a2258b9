"""Rows are differences that build on rows of poolings: what becomes of them when those are measured anew."""

from collections.abc import Mapping
from dataclasses import replace

from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement
from hw_profiles.runtimes.device import Device


def rebased(
    device: Device, table: Mapping[Layer, Measurement], better: Mapping[Layer, Measurement]
) -> dict[Layer, Measurement]:
    """Return the rows that build on a pooling which was measured anew, moved by what that changed."""
    moved_s = {
        layer: row.median_s - table[layer].median_s
        for layer, row in better.items()
        if layer.kind == "pool" and layer in table and row.error is None
    }
    rows: dict[Layer, Measurement] = {}
    if not moved_s:
        return rows
    for layer in sorted(table, key=lambda layer: layer.kind != "pool"):  # integer poolings build on others
        row = table[layer]
        if layer in better or row.error is not None or not device.supports(layer):
            continue
        shift_s = sum(factor * moved_s.get(pool, 0.0) for factor, pool in device.probe(layer).pools)
        if shift_s:
            rows[layer] = replace(row, samples_s=tuple(sample + shift_s for sample in row.samples_s))
            if layer.kind == "pool":
                moved_s[layer] = shift_s
    return rows
