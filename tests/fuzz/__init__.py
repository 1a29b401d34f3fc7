"""Readers of corpora against files that are broken in every way: ``make fuzz``."""
