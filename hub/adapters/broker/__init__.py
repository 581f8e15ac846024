"""An external MQTT broker in place of the built-in endpoint."""
