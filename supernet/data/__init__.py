"""Data sets: readers, archives and splits."""
