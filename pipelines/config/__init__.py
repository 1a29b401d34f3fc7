"""What a benchmark file may say, checked before anything runs."""
