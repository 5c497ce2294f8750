"""The quickstart's small world: its text, its true quality, and the two small models made from it."""
