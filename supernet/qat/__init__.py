"""Quantization-aware training: learned scales and bit switching."""
