"""Base images out of Debian packages, without Docker or root."""
