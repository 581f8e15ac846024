"""What the hub decides; pure."""
