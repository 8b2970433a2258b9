"""Expensive evaluations: stored, shared between processes, and repeated never."""
