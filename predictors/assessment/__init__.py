"""How good predictions are: out-of-fold errors, intervals and learning curves."""
