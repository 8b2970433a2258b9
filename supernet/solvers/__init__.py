"""Exact solvers of allocation problems."""
