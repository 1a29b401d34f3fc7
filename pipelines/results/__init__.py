"""Results of a benchmark: read back from its stages, tested and summarised."""
