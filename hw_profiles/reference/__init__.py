"""Integer arithmetic of layers in numpy: what every kernel and file is compared with."""
