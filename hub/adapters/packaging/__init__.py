"""Building images without a container engine."""
