"""Predictors of a network's quality from its genome."""
