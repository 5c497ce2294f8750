"""Semantic-calibrated self-play preference optimization on NeMo and Megatron-core (S-SPPO, arXiv 2606.01561)."""

__version__ = "0.1.0"
