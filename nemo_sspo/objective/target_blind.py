"""Losses that ask only which response was chosen. Imports no torch: what plans a run reads it too."""

TARGET_BLIND = frozenset({"sppo_hard", "dpo", "ipo", "kto_pair"})
"""The losses of `LOSSES` whose value no calibrated target enters: a semantic gate has no effect on what they train."""
