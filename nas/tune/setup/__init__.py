"""A tune as its configuration says it: the model, the examples, the device, and what all of it costs."""
