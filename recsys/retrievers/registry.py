"""All retrievers that a benchmark can name."""

from __future__ import annotations

from recsys.retrievers.base import Retriever
from semantic_ids.plugins import Registry, subclass_of

RETRIEVERS: Registry[type[Retriever]] = Registry(
    "retriever",
    "recsys.retrievers",
    {
        "popularity": "recsys.retrievers.popularity:Popularity",
        "item-knn": "recsys.retrievers.knn:ItemKnn",
        "content-knn": "recsys.retrievers.knn:ContentKnn",
        "knn-sum": "recsys.retrievers.knn:KnnSum",
        "transition-knn": "recsys.retrievers.transitions:TransitionKnn",
        "pctm": "recsys.retrievers.pctm:Pctm",
        "pctm-content": "recsys.retrievers.pctm_content:PctmContent",
        "bm25": "recsys.retrievers.bm25:Bm25",
        "sasrec": "recsys.retrievers.sasrec:SasRec",
        "dual-encoder": "recsys.retrievers.dual_encoder:DualEncoder",
        "tiger": "recsys.retrievers.tiger:Tiger",
        "ensemble": "recsys.retrievers.ensemble:Ensemble",
    },
    subclass_of(Retriever),  # type: ignore[type-abstract]
)
"""Retrievers by name, plug-ins of installed packages included; also ``module:Class``."""
