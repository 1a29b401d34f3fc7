"""Neural networks in plain PyTorch: a T5, a causal transformer, and their dropout."""
