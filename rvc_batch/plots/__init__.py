"""Pictures for people who would rather look than read. The only place that imports matplotlib, the `plot` extra."""
