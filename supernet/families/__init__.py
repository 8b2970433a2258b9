"""One file per family of networks: typed architecture, space, workload, elastic network, extraction."""
