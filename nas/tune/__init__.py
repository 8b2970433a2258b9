"""Tuning somebody's trained network: a number format for each of its units."""
