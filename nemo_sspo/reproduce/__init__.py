"""The tables and figures of the two papers: what each needs, and our numbers beside the published ones.

`papers/` declares them: a file per table or figure with its published numbers, and one per paper with its runs and the
checkpoints from outside.
"""
