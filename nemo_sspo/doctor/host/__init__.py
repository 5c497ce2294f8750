"""What a run finds on a host: one subject a file, each a function that yields checks and starts nothing of a run."""
