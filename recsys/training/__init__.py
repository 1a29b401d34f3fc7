"""One training loop for every retriever, its checkpoints and its batches."""
