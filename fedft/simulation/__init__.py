"""Many institutions played on one machine."""
