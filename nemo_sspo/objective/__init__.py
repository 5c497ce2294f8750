"""The papers' equations: arrays in, arrays out. No process group, no file and no config object enters here.

Pair construction works on NumPy arrays of all prompts at once; losses and repulsion on torch tensors of a microbatch.
Legend of the shape suffixes: N prompts, K responses per prompt, B pairs, H hidden size.
"""
