"""Which networks to evaluate next."""
