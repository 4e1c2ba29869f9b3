"""What may leave an institution, and what a coordinator lets in."""
