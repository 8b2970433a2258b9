"""Analytical accelerators, one TOML file each: every figure with its unit and where it comes from."""
