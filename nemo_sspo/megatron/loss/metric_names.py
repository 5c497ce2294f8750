"""The metrics of a training step by name. No torch."""

MEANS = ("loss", "preference", "repulsion", "d_chosen", "d_rejected", "margin", "accuracy", "cosine")
"""Metrics that are means over the pairs of the global batch, in the order of `PairMetrics.sums`."""
METRICS = (*MEANS, "pairs", "gradient_ratio", "effective_rank")
"""Names of a step's metrics.

gradient_ratio: norm of the gradient of (repulsion weight x repulsion) over the norm of the preference loss's gradient,
    both with respect to the hidden states; 0 where the latter is 0. It shows which term dominates.
effective_rank: exp of the entropy of the normalized singular values of the pooled unit states of all responses
    (Roy and Vetterli, 2007); 1 when they all point the same way, at most the number of responses.
"""
