"""What a coordinator did in a run: an append-only log under a signed head."""
