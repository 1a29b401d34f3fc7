"""Texts of items and queries, and the vectors that encoders make of them."""
