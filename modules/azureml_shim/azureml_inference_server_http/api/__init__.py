"""Raw HTTP access for entry scripts."""
