"""One file per claim: ours and the others' formulation on the same input, in one process. `make bench` runs them all."""
