"""Trained models of one's own, from ONNX files and torch: their graph, their units, their numbers."""
