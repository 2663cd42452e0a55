"""Searches for the layers to roll back to float."""
