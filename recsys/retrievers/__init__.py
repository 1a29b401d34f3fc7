"""Retrievers: fitted on examples over semantic IDs, they rank the whole catalogue."""
