"""The hub: models, images, devices, deployments, telemetry."""
