"""The report of a run: a document that can be filed, as a page, as JSON, as PDF."""
