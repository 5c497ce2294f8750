"""What a run will take before it runs: what a rank holds, computes and sends, and how long that is. No torch."""
