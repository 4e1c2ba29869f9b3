"""fedft: hospitals and banks fine-tune one language model together without sharing a record."""

__version__ = "0.1.0"
