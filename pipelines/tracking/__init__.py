"""MLflow: what a benchmark keeps there, where, and what happens while it cannot be reached."""
