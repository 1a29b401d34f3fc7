"""Per-query scores on the full catalogue, and what may be concluded from them."""
