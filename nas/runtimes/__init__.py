"""One network on every runtime of this machine, side by side."""
