"""What `nemo-sspo doctor` checks: the machine, its environments, and with `--run` the project's stages on them."""
