"""The training loop that all trained retrievers share, with its checkpoints and batches."""
