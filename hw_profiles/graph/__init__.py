"""Networks as data: layers, workloads and what is counted of them."""
