"""The conversation with the hub over MQTT."""
