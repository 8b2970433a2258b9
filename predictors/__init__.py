"""Generalise from evaluations: never measure, never train a supernet."""
