"""Real agent code with simulated rims."""
