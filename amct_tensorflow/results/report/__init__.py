"""The report of a run: its numbers as JSON, and a page that shows them."""
