"""Neural networks in plain PyTorch: a T5, a causal transformer, and the dropout that both use."""
