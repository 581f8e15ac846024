"""What the agent decides; pure."""
