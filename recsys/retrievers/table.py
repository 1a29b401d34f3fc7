"""Retrievers by name."""

from __future__ import annotations

from recsys.retrievers.base import Retriever
from recsys.retrievers.dual_encoder import DualEncoder
from recsys.retrievers.popularity import Popularity
from recsys.retrievers.sasrec import SasRec
from recsys.retrievers.tiger import Tiger

RETRIEVERS: dict[str, type[Retriever]] = {
    "dual-encoder": DualEncoder,
    "tiger": Tiger,
    "popularity": Popularity,
    "sasrec": SasRec,
}
