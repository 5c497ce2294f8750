"""Preference games with a finite set of responses, in which self-play, equilibria and gates are computed exactly.

Legend: N games, K responses of a game, M meanings, D embedding size, T steps of self-play. ``p_NKK[n, i, j]`` is the
probability that response i beats response j; a policy is a distribution over a game's responses, [N, K].
"""
