"""Images on the device: pulled, verified, unpacked, kept."""
