"""Checks of files in a process of their own."""
