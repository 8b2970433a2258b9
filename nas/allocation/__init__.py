"""Number formats of one architecture, allocated exactly."""
