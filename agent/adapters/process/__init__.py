"""Modules as processes, without a container engine."""
