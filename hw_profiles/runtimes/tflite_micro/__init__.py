"""TensorFlow Lite Micro: what a network needs on a microcontroller, counted here; nothing is timed."""
