"""The privacy claim, tested by attack: canaries in a real run, guesses, and the least epsilon they leave possible."""
