"""The demonstration: a home with the small models that come with the package, and a box that renders in it.

`models` and `speech` beside this file are data. How they were made: `tools/demo_voices` in the sources.
"""
