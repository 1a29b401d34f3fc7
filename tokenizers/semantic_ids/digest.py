"""A digest of tensors and their description, by which damaged files are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def content_digest(tensors: Mapping[str, Tensor], description: Any) -> str:
    """Return a digest, 64 hex digits, of tensors with their names, dtypes and shapes, and of a description.

    Args:
        tensors: Name to tensor, on any device; their order does not matter.
        description: A JSON value.

    Example:
        >>> content_digest({"x": torch.zeros(2)}, {"step": 1})[:8]
        '940b6d85'
    """
    sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"\n{name} {values.dtype} {tuple(values.shape)}\n".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy())  # NumPy has no bfloat16
    return sha.hexdigest()
