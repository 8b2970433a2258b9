"""Searchers: they see arrays of genomes and arrays of numbers, nothing else."""
