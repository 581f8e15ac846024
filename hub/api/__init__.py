"""The hub's HTTP rim."""
