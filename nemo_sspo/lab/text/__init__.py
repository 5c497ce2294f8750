"""Real answers under a real sentence encoder: how alike they are, and what gates make of an oracle's margins.

Legend: N texts, D embedding size, M pairs of texts, P prompts, S resamples of the prompts.
"""
