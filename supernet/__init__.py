"""What can be built, how it is trained, and how it is quantized."""
