"""Amazon product reviews: the releases of 2014 (the corpora of TIGER and GRIT-VQ), 2018 and 2023.

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
from recsys.datasets.corpus import ITEMS, Corpus, items_of, undescribed
from recsys.datasets.formats.lines import checked_file
from recsys.datasets.interactions import distinct_events, interactions_of, item_ids_of
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
    """Read one category of a release; files may be plain, gzip or zstd.

    Items that ``meta`` does not describe are kept, without text, and counted in ``notes`` as
    ``items_without_metadata``; items without reviews are left out. HTML entities in texts are decoded and
    white space is evened out. The brand ``Unknown`` counts as none (``Generic`` stays: it says that a thing
    is unbranded), and so does a title that is a script of the web page, as some of 2018 are. Categories are
    distinct names from the department down; of the several paths that an item of 2014 may have the whole
    first one, then what further paths add. ``description`` is ``""`` throughout: the texts of the papers are
    made of title, brand and categories.

    Times of 2023 are in milliseconds: by these reviews are sorted, then they are cut to whole seconds.

    Args:
        reviews: a JSON object a line with ``reviewerID``, ``asin`` and ``unixReviewTime`` (2014, 2018) or
            ``user_id``, ``parent_asin`` and ``timestamp`` (2023), other fields are ignored; or, if its name
            ends in ``.csv``, ``.csv.gz`` or ``.csv.zst``, the ratings only: ``user,item,rating,time``
            (2014) or ``item,user,rating,time`` (2018), both without a header, or with the header
            ``user_id,parent_asin,rating,timestamp`` (2023).
        meta: 2014: a Python dict literal a line with ``asin`` and, where known, ``title``, ``brand`` and
            ``categories`` (a list of paths). 2018: a JSON object a line with ``asin``, ``title``, ``brand``
            and ``category`` (a list). 2023: with ``parent_asin``, ``title``, ``store`` and ``categories``
            (a list). If not given, nothing is known of any item.
        release: by the year that its files are named after.
        k_core: keep users and items with this many interactions at least; 1 keeps all.
        keep: of several reviews of an item by a user, the first or the last by time; the others are
            counted in ``notes`` as ``duplicate_reviews``.
        skip_bad_lines: leave broken lines out, count them and log the first, instead of raising.

    Raises:
        FileNotFoundError: a file is missing.
        IsADirectoryError: a path is a directory.
        ValueError: a line is broken, a file is cut off or empty, nothing is left of the k-core, or ``meta``
            describes other items.
    """
    reviews = checked_file(reviews, "reviews")
    meta = checked_file(meta, "meta") if meta is not None else None
    events, skipped_reviews = read_events(reviews, release, skip_bad_lines=skip_bad_lines)
    read = len(events)
    distinct = [distinct_events(events, keep)]
    del events
    duplicates = read - len(distinct[0])
    # Handed over, so that their memory serves what is made of them: there may be a hundred million.
    interactions = interactions_of(distinct.pop(), k_core=k_core, keep="all")
    if interactions.is_empty():
        raise ValueError(f"{reviews}: of {read} reviews nothing is left in the {k_core}-core")
    interactions = interactions.with_columns(pl.col("timestamp") // TICKS[release])
    item_ids = item_ids_of(interactions)
    metadata, skipped_items = pl.DataFrame(schema=ITEMS), 0
    if meta is not None:
        metadata, skipped_items = read_items(meta, release, set(item_ids), skip_bad_lines=skip_bad_lines)
        if metadata.is_empty():
            raise ValueError(
                f"{meta}: describes none of the {len(item_ids)} items of {reviews}: not its file?"
            )
    return Corpus(
        items_of(item_ids, metadata),
        interactions,
        category_level=1,
        skipped_lines=skipped_reviews + skipped_items,
        notes={
            "items_without_metadata": undescribed(item_ids, metadata),
            "duplicate_reviews": duplicates,
        },
    )
