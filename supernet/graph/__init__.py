"""Networks with weights: executed in torch, simulated in integers."""
