"""The papers' equations: arrays in, arrays out. No process group, no file and no config object enters here.

Pair construction works on NumPy arrays of all prompts at once; losses and repulsion on torch tensors of a microbatch.
A suffix names the shape, a letter for each dimension, and a letter means the same in every module: N prompts,
K responses per prompt, M response pairs of any prompts, T triples of a prompt's responses, U distinct n-grams,
D embedding size, S resamples of the prompts, I bins; B pairs of a microbatch, R single responses of it, H hidden size;
X any shape.
"""
