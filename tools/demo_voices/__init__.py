"""The recipe of the demonstration model set: `python -m tools.demo_voices` makes it from free synthesisers alone."""
