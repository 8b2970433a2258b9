"""A run folder: its configuration, files, stages' state and lock."""
