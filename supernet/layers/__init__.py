"""Elastic layers: `forward(x, sizes)`, with no stored active state."""
