"""What a file does in service: latency and throughput."""
