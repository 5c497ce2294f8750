"""How far the first preference loss may lie from its closed form (every log-ratio 0), relative to it."""

STEP1_TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2, "fp8": 3e-2}
"""By precision. Reference and training are the same forward pass, but a row of another length rounds otherwise."""
