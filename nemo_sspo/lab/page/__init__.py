"""The lab's page and its figures, made of results alone."""
