"""Retrievers: they learn from examples and rank the whole catalogue for each query."""
