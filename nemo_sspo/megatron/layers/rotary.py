"""Llama 3.1's rotary frequencies, exact for every setting.

Megatron's own scaling fixes all numbers but the factor, and NeMo's is that of its config class.
"""

from __future__ import annotations

import math

from torch import Tensor


def scale_frequencies(
    frequencies_D: Tensor, *, scale_factor: float, low_freq_factor: float, high_freq_factor: float, old_context_len: int
) -> Tensor:
    """Frequencies [D / 2], in radians per token, of a policy whose context was stretched by `scale_factor`.

    Waves longer than the old context / `low_freq_factor` are stretched, those shorter than the old context /
    `high_freq_factor` stay as they are, and between the two the share of the stretched one falls linearly with the
    frequency (``rope_type: llama3`` of Hugging Face).
    """
    # In the order in which Hugging Face rounds.
    length_D = 2 * math.pi / frequencies_D
    kept_D = ((old_context_len / length_D - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return (1 - kept_D) * frequencies_D / scale_factor + kept_D * frequencies_D
