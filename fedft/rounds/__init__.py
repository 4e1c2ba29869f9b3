"""One round as plain Python, for the coordinator and for an institution. Knows no network."""
