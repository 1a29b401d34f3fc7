"""Data, item texts, retrievers and evaluation for recommendation with semantic IDs."""
