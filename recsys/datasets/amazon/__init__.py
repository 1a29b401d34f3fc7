"""Reader of Amazon product reviews, releases 2014 (the corpora of TIGER and GRIT-VQ), 2018 and 2023.

Sources: J. McAuley, C. Targett, Q. Shi, A. van den Hengel, *Image-based recommendations on styles and
substitutes*, SIGIR 2015 (2014); J. Ni, J. Li, J. McAuley, *Justifying recommendations using
distantly-labeled reviews and fine-grained aspects*, EMNLP 2019 (2018); Y. Hou et al., *Bridging language
and items for retrieval and recommendation*, arXiv:2403.03952 (2023).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from recsys.datasets.amazon.metadata import read_items
from recsys.datasets.amazon.reviews import TICKS, read_events
from recsys.datasets.corpus import ITEMS, Corpus, check_metadata, count_undescribed, items_of
from recsys.datasets.formats.lines import checked_file
from recsys.datasets.interactions import check_core, distinct_events, interactions_of, item_ids_of
from recsys.datasets.readers import reader


@reader
def read_amazon(
    reviews: Path,
    meta: Path | None = None,
    *,
    release: Literal[2014, 2018, 2023] = 2014,
    k_core: int = 5,
    keep: Literal["first", "last"] = "first",
    skip_bad_lines: bool = False,
) -> Corpus:
    """Read one category of a release, from plain, gzip or zstd files.

    Items that ``meta`` does not describe are kept, without texts, and counted in ``notes`` as
    ``items_without_metadata``. Items without reviews are left out. HTML entities in texts are decoded, and
    white space is reduced to single spaces. The brand ``Unknown`` is treated as missing, but not ``Generic``,
    which means that an item is unbranded. Some titles of 2018 are a script of the web page; they are treated
    as missing, too. Categories are distinct names from the department to the narrowest category. An item of
    2014 may have several category paths; then its categories are the whole first path and the new names of
    the other paths. ``description`` is always ``""``, because the papers build their texts from title, brand
    and categories.

    Times of 2023 are in milliseconds. Reviews are sorted by them, and then times are cut to whole seconds.

    Args:
        reviews: File with one JSON object per line, with ``reviewerID``, ``asin`` and ``unixReviewTime``
            (2014, 2018) or ``user_id``, ``parent_asin`` and ``timestamp`` (2023); other fields are ignored.
            If the name ends in ``.csv``, ``.csv.gz`` or ``.csv.zst``, the file has ratings only:
            ``user,item,rating,time`` (2014) or ``item,user,rating,time`` (2018), both without a header, or
            with the header ``user_id,parent_asin,rating,timestamp`` (2023).
        meta: File with one item per line. 2014: a Python dict literal with ``asin`` and, if known,
            ``title``, ``brand`` and ``categories`` (a list of paths). 2018: a JSON object with ``asin``,
            ``title``, ``brand`` and ``category`` (a list). 2023: a JSON object with ``parent_asin``,
            ``title``, ``store`` and ``categories`` (a list). Without it items have no texts.
        release: The release, by the year in the names of its files.
        k_core: Smallest number of interactions of a user and of an item; 1 keeps all.
        keep: Which review is used if a user has several of an item: the first or the last by time. The
            others are counted in ``notes`` as ``duplicate_reviews``.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.

    Returns:
        The corpus, without queries.

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        ValueError: If a line is broken; if a file is incomplete or empty; if nothing is left in the k-core;
            or if ``meta`` describes other items.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from recsys.datasets.synthetic import write_shop
        >>> with TemporaryDirectory() as folder:
        ...     files = write_shop(folder, "amazon", users=50, items=100, release=2018)
        ...     corpus = read_amazon(**files, release=2018, k_core=1)
        >>> corpus.notes
        {'items_without_metadata': 0, 'duplicate_reviews': 0}
    """
    reviews = checked_file(reviews, "reviews")
    meta = checked_file(meta, "meta") if meta is not None else None
    events, skipped_reviews = read_events(reviews, release, skip_bad_lines=skip_bad_lines)
    num_reviews = len(events)
    distinct = [distinct_events(events, keep)]
    del events
    duplicates = num_reviews - len(distinct[0])
    # There may be a hundred million events. pop() leaves no reference to them here, so that interactions_of
    # can free their memory.
    interactions = interactions_of(distinct.pop(), k_core=k_core, keep="all")
    check_core(reviews, interactions, k_core, f"{num_reviews} reviews")
    interactions = interactions.with_columns(pl.col("timestamp") // TICKS[release])
    item_ids = item_ids_of(interactions)
    metadata, skipped_items = pl.DataFrame(schema=ITEMS), 0
    if meta is not None:
        metadata, skipped_items = read_items(meta, release, set(item_ids), skip_bad_lines=skip_bad_lines)
        check_metadata(meta, item_ids, metadata, f"items of {reviews}")
    return Corpus(
        items_of(item_ids, metadata),
        interactions,
        category_level=1,
        skipped_lines=skipped_reviews + skipped_items,
        notes={
            "items_without_metadata": count_undescribed(item_ids, metadata),
            "duplicate_reviews": duplicates,
        },
    )
