"""Post-training quantization of extracted subnets: formats, calibration, integer-exact simulation."""
