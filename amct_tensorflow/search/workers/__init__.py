"""Evaluating in several processes, on this machine or on a Ray cluster, with the results of a single one."""
