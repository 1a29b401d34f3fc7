"""Exact inner-product search: FAISS on the CPU, the matrix product itself on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.examples import Floats, Ints


def top_inner_products(queries: Tensor, vectors: Tensor, k: int) -> tuple[Ints, Floats]:
    """The ``k`` vectors with the largest inner product for each query, best first.

    Args:
        queries: ``(Q, D)`` float32.
        vectors: ``(M, D)`` float32 on the same device, M ≥ k.
        k: how many.

    Returns:
        Rows of ``vectors`` ``(Q, k)`` int64, and inner products ``(Q, k)`` float32.
    """
    if queries.device.type != "cpu":
        found = [(part @ vectors.T).topk(k, dim=1) for part in queries.split(1024)]
        rows = torch.cat([f.indices for f in found]).cpu().numpy()
        return rows, torch.cat([f.values for f in found]).cpu().numpy()

    import faiss  # noqa: PLC0415 — optional: a machine with a GPU needs none

    # Below this many queries FAISS scans them one by one, many times slower than one product.
    faiss.cvar.distance_compute_blas_threshold = 20
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors.numpy()))
    scores, rows = index.search(np.ascontiguousarray(queries.numpy()), k)
    return rows, scores
