"""Benchmarks that others publish: what they ask, what they want written, and how their judges are run. No torch."""
