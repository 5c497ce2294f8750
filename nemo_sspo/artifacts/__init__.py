"""The only package that knows the disk: what an artifact is, where it lies, and how it becomes visible."""
