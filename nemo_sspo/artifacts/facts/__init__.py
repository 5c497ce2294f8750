"""What each stage reports, as typed facts; the manifest on disk holds them under flat keys."""
