"""The errors that tokenizers and retrievers have in common."""

from __future__ import annotations


class TrainingDivergedError(ValueError):
    """Raised when a training went astray: its loss or its weights are no finite numbers, or far too large."""


class ContractError(ValueError):
    """Raised when a tokenizer or retriever returns what it must not; the message says what to return."""
