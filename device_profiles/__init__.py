"""Device classes as data: one YAML file each."""
