"""What a device notices about its own models."""
