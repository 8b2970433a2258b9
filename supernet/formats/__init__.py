"""Number formats of weights and activations."""
