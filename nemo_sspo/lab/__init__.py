"""What the papers claim, put to the test where the truth is known."""
