"""Predictors of latency: of layers that were not measured, and of whole networks."""
