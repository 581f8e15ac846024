"""Use cases of the hub; one public method is one transaction."""
