"""Retrievers by name."""

from __future__ import annotations

from recsys.retrievers.base import Retriever
from recsys.retrievers.bm25 import Bm25
from recsys.retrievers.dual_encoder import DualEncoder
from recsys.retrievers.ensemble import Fused
from recsys.retrievers.knn import ContentKnn, ItemKnn, KnnSum
from recsys.retrievers.popularity import Popularity
from recsys.retrievers.sasrec import SasRec
from recsys.retrievers.tiger import Tiger
from recsys.retrievers.transitions import TransitionKnn

RETRIEVERS: dict[str, type[Retriever]] = {
    "popularity": Popularity,
    "item-knn": ItemKnn,
    "content-knn": ContentKnn,
    "knn-sum": KnnSum,
    "transition-knn": TransitionKnn,
    "bm25": Bm25,
    "sasrec": SasRec,
    "dual-encoder": DualEncoder,
    "tiger": Tiger,
    "fused": Fused,
}
