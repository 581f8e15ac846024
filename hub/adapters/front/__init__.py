"""The built-in MQTT endpoint: codec, sessions, limits; dialects translate."""
