"""Base models, their adapters as one flat vector, and files that hold them."""
