"""The claims that need a GPU, one file each; `make bench-gpu` runs all, README.md says what they need and mean."""
