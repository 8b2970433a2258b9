"""Search spaces: choices, genomes and candidates."""
