"""Devices without an executable: accelerator models, published tables and recordings."""
