"""One file per claim: ours and the others' formulation on one input, in one process. `make bench` runs all."""
