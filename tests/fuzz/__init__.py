"""Fuzzing of the corpus readers with broken files: ``make fuzz``."""
