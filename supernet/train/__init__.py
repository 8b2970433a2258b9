"""Supernet training: data, sampling schedules, losses, batch norm, checkpoints, the loop."""
