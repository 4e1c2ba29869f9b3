"""How good a model is, on rows that are public or one's own, and what it answers."""
