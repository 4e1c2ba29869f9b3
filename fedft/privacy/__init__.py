"""What happened to a data set, what it cost, and the noise that pays for it. Knows nothing of models."""
