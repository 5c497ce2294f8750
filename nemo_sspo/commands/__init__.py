"""Commands of the command line beyond running a loop, one file per subject."""
