"""A microcontroller that is not there, as a device: it runs networks as one does, and has no times itself."""
