"""rvc-batch: a voice-conversion render box."""

__version__ = "0.1.0"
