"""What `nemo-sspo profile` measures: each file a process of its own, in the environment that it looks at."""
