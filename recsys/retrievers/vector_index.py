"""Inner-product search among the catalogue's vectors, by an index of the name that users know from FAISS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from semantic_ids.types import Floats, Ints

IndexName = Literal["Flat", "IVF", "HNSW"]

Search = Callable[[Tensor, int], tuple[Ints, Floats]]
"""Queries ``(Q, D)`` float32 and k → the rows of k vectors ``(Q, k)`` int64, best first, and their
inner products ``(Q, k)`` float32; -1 and -inf where an approximate index found fewer."""

_QUERIES_AT_ONCE = 1024


def check_index(name: str) -> None:
    """Refuse a name that no index has, with a :class:`ValueError`."""
    if name not in get_args(IndexName):
        raise ValueError(f"an index is one of {', '.join(get_args(IndexName))}, not {name!r}")


def build_index(vectors: Tensor, name: IndexName = "Flat") -> Search:
    """What finds the vectors with the largest inner products.

    Args:
        vectors: ``(M, D)`` float32.
        name: ``Flat`` looks at all, and is exact: FAISS on a CPU, the product itself on a GPU. ``IVF`` looks
            into the 1 of 8 cells that lie nearest, of 4 √M cells made by k-means; ``HNSW`` walks a graph.
            Both run on the CPU and may miss some.

    Raises:
        ValueError: there is no index of that name.
    """
    check_index(name)
    if name == "Flat" and vectors.device.type != "cpu":
        return lambda queries, k: _by_product(queries, vectors, k)

    import faiss  # noqa: PLC0415 — optional: a machine with a GPU needs none

    # Below this many queries FAISS scans them one by one, many times slower than one product; and
    # its blocks are too small to keep up with the product alone.
    faiss.cvar.distance_compute_blas_threshold = 20
    faiss.cvar.distance_compute_blas_query_bs = 512
    faiss.cvar.distance_compute_blas_database_bs = 2048
    count, width = vectors.shape
    index: Any
    if name == "Flat":
        index = faiss.IndexFlatIP(width)
    elif name == "IVF":
        cells = max(1, min(count // 39, round(4 * count**0.5)))  # k-means wants 39 vectors a cell
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = -(-cells // 8)
    else:
        index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.hnsw.efSearch = 256
    kept = np.ascontiguousarray(vectors.cpu().numpy())
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if name == "HNSW" else threads)  # several build another graph every time
    index.train(kept)
    index.add(kept)
    faiss.omp_set_num_threads(threads)

    def search(queries: Tensor, k: int) -> tuple[Ints, Floats]:
        scores, rows = index.search(np.ascontiguousarray(queries.cpu().numpy()), k)
        return rows, np.where(rows < 0, -np.inf, scores).astype(np.float32)

    return search


def _by_product(queries: Tensor, vectors: Tensor, k: int) -> tuple[Ints, Floats]:
    found = [(part @ vectors.T).topk(k, dim=1) for part in queries.split(_QUERIES_AT_ONCE)]
    rows = torch.cat([f.indices for f in found]).cpu().numpy()
    return rows, torch.cat([f.values for f in found]).cpu().numpy()
