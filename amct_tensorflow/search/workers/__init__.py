"""Evaluates in several processes, on this machine or on a Ray cluster; results are those of a single process."""
