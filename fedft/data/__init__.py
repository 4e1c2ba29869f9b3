"""Rows, privacy units, tokens: everything of the data that training sees, and nothing that leaves."""
