"""What `nemo-sspo doctor` finds out: about a machine and its environments, and of the project's stages on them."""
