"""Brings a float graph into one canonical form, whatever wrote it."""
