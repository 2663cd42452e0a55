"""Rewrites into the one form that fusion and quantization know, one per file.

Each takes an editor of a graph and an index of the same graph with its static shapes, changes what it knows, and
returns, per node that it added, which node of the graph that one stands for. The names of layers stay.
"""
