"""Search for the vectors with the largest inner products, with the kinds of index that FAISS has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from semantic_ids.types import Floats, Ints

IndexName = Literal["Flat", "IVF", "HNSW"]

Search = Callable[[Tensor, int], tuple[Ints, Floats]]
"""A function that searches for the k best vectors of each query.

It takes queries ``(Q, D)`` float32 and k. It returns rows of vectors ``(Q, k)`` int64, best first, and their
inner products ``(Q, k)`` float32; -1 and -inf where an approximate index found fewer."""

_QUERIES_AT_ONCE = 1024


def check_index(name: str) -> None:
    """Check that there is an index of this name.

    Raises:
        ValueError: If there is none. The message lists the names.
    """
    if name not in get_args(IndexName):
        raise ValueError(f"an index is one of {', '.join(get_args(IndexName))}, not {name!r}")


def build_index(vectors: Tensor, name: IndexName = "Flat") -> Search:
    """Build an index, and return its search function.

    Args:
        vectors: ``(M, D)`` float32, the vectors to search.
        name: Kind of index. ``Flat`` compares with all vectors and is exact; it uses FAISS on a CPU and a
            matrix product on a GPU. ``IVF`` divides the vectors into 4 √M cells by k-means and searches the
            nearest eighth of them. ``HNSW`` follows a graph of neighbours. ``IVF`` and ``HNSW`` run on the
            CPU and may miss some of the best vectors.

    Raises:
        ValueError: If there is no index of this name.
    """
    check_index(name)
    if name == "Flat" and vectors.device.type != "cpu":
        return lambda queries, k: _search_by_product(queries, vectors, k)

    import faiss  # noqa: PLC0415 — optional: an exact search on a GPU does not need it

    # With fewer queries than the threshold, FAISS compares them one by one, which is many times slower than
    # a matrix product. FAISS's own default block sizes are too small to be as fast as the product alone.
    faiss.cvar.distance_compute_blas_threshold = 20
    faiss.cvar.distance_compute_blas_query_bs = 512
    faiss.cvar.distance_compute_blas_database_bs = 2048
    count, width = vectors.shape
    index: Any
    if name == "Flat":
        index = faiss.IndexFlatIP(width)
    elif name == "IVF":
        cells = max(1, min(count // 39, round(4 * count**0.5)))  # k-means needs 39 vectors per cell
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = -(-cells // 8)
    else:
        index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.hnsw.efSearch = 256
    matrix = np.ascontiguousarray(vectors.cpu().numpy())
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if name == "HNSW" else threads)  # with several threads every build differs
    index.train(matrix)
    index.add(matrix)
    faiss.omp_set_num_threads(threads)

    def search(queries: Tensor, k: int) -> tuple[Ints, Floats]:
        """Search by FAISS, which has no score for missing vectors; see :data:`Search`."""
        scores, rows = index.search(np.ascontiguousarray(queries.cpu().numpy()), k)
        return rows, np.where(rows < 0, -np.inf, scores).astype(np.float32)

    return search


def _search_by_product(queries: Tensor, vectors: Tensor, k: int) -> tuple[Ints, Floats]:
    """Search exactly, by matrix products on the vectors' device; see :data:`Search`."""
    parts = [(part @ vectors.T).topk(k, dim=1) for part in queries.split(_QUERIES_AT_ONCE)]
    rows = torch.cat([part.indices for part in parts]).cpu().numpy()
    return rows, torch.cat([part.values for part in parts]).cpu().numpy()
