"""The hub's rims: databases, files, sockets, certificates."""
