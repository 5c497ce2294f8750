"""One file, one verb: each stage reads some artifacts and publishes one."""
