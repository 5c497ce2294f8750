"""What a run's artifacts say, as typed numbers. Nothing here draws."""
