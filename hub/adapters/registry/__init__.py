"""Where images are put: our own registry or somebody else's."""
