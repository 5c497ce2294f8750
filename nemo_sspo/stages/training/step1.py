"""How far the first preference loss may lie from its closed form: that of the same pairs with log-ratios of 0."""

STEP1_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2, "fp8": 3e-2}
"""Relative, by precision. Reference and training are one forward pass, but rows of another length round otherwise."""
