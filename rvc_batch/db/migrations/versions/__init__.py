"""One script per schema revision."""
