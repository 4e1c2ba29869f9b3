"""The institution's end of Flower: a relay, and nothing that could meet data."""
