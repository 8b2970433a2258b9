"""The backends: one file per engine, each the only place that imports it."""
