"""What one layer, or one network, costs on one device. Imports neither torch nor any package to its right."""
