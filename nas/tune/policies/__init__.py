"""Policies of a model: which number format each unit has; as a search space, and drawn at random."""
