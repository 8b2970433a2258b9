"""The search problem: costs of genomes, objectives and limits."""
