"""What a person sees of a run: a live display on a terminal, plain lines elsewhere, and the summary at its end."""
