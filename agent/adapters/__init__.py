"""The agent's rims."""
