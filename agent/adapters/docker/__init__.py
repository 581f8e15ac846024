"""Modules as containers of a Docker Engine."""
