"""The coordinator's end of Flower."""
