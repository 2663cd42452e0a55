"""Loads a model of any form as a frozen graph."""
