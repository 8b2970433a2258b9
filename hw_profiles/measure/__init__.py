"""How one layer or one network is timed on a device."""
