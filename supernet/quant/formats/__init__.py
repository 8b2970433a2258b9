"""One file per number format."""
