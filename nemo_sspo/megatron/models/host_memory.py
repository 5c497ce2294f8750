"""How much host memory the conversion of a policy takes. No torch.

Each process holds one tensor of Megatron's model at a time, or several that are no larger together than the largest,
and copies of it while it is read, joined or cut, and written.
"""

MOST_PROCESSES = 8
"""That convert a policy; a storage that several nodes share is hardly faster with more."""
