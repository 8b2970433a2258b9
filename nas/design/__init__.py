"""Designing a space for a device: block types and width windows (SpaceEvo, arXiv:2303.08308)."""
