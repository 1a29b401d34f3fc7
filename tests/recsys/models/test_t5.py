"""Our T5 against transformers' T5ForConditionalGeneration with the same weights."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.decoding.beam_search import beam_search
from recsys.decoding.trie import Trie
from recsys.models.t5 import PAD, T5
from recsys.models.t5_layers import Steps, T5Config

transformers = pytest.importorskip("transformers")

SIZES = (7, 5, 9)
CONFIG = T5Config(width=16, layers=2, heads=3, head_width=8, feed_forward=24, dropout=0.1)
LEAVES = np.unique(np.random.default_rng(0).integers(0, SIZES, (60, 3)), axis=0)


def theirs_of(name: str) -> str:
    """Our parameter name → transformers'."""
    for ours, theirs in {
        "embedding": "shared",
        "encoder_bias.buckets": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        "decoder_bias.buckets": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        "encoder_norm": "encoder.final_layer_norm",
        "decoder_norm": "decoder.final_layer_norm",
        "self_norm": "layer.0.layer_norm",
        "self_attention": "layer.0.SelfAttention",
        "cross_norm": "layer.1.layer_norm",
        "cross_attention": "layer.1.EncDecAttention",
        "feed_forward_norm": "layer.{last}.layer_norm",
        "feed_forward.inner": "layer.{last}.DenseReluDense.wi",
        "feed_forward.outer": "layer.{last}.DenseReluDense.wo",
        ".query.": ".q.",
        ".key.": ".k.",
        ".value.": ".v.",
        ".output.": ".o.",
    }.items():
        name = name.replace(ours, theirs)
    name = name.replace("{last}", "1" if name.startswith("encoder") else "2")
    return re.sub(r"^(..coder)\.(\d)", r"\1.block.\2", name)


@pytest.fixture(scope="module")
def ours() -> T5:
    torch.manual_seed(3)
    model = T5(SIZES, CONFIG)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # as initialised they are 1 everywhere, and mixing them up would not show
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def theirs(ours: T5) -> torch.nn.Module:
    config = transformers.T5Config(
        vocab_size=1 + sum(SIZES),
        d_model=CONFIG.width,
        d_kv=CONFIG.head_width,
        d_ff=CONFIG.feed_forward,
        num_layers=CONFIG.layers,
        num_heads=CONFIG.heads,
        feed_forward_proj="relu",
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=None,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    weights = {theirs_of(name): value for name, value in ours.state_dict().items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    assert set(missing) <= tied  # they share storage with shared.weight
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in ours.parameters())
    return model


def random_tokens(shape: tuple[int, int], seed: int) -> Tensor:
    return torch.randint(1, 1 + sum(SIZES), shape, generator=torch.Generator().manual_seed(seed))


def test_logits_and_loss_are_those_of_transformers(ours: T5, theirs: torch.nn.Module) -> None:
    # 200 tokens reach into every bucket of the relative positions and beyond the farthest.
    sources, targets = random_tokens((4, 200), 0), random_tokens((4, 150), 1)
    lengths = torch.tensor([200, 120, 37, 1])
    sources[torch.arange(200) >= lengths[:, None]] = PAD

    hidden = ours.decode(F.pad(targets[:, :-1], (1, 0), value=PAD), ours.encode(sources))
    logits = ours.logits(hidden, slice(None))
    reference = theirs(input_ids=sources, attention_mask=(sources != PAD).long(), labels=targets)

    torch.testing.assert_close(logits, reference.logits, rtol=0, atol=1e-5)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, reference.loss, rtol=0, atol=1e-5)


def test_gradients_are_those_of_transformers(ours: T5, theirs: torch.nn.Module) -> None:
    sources, targets = random_tokens((3, 30), 4), random_tokens((3, 5), 5)
    hidden = ours.decode(F.pad(targets[:, :-1], (1, 0), value=PAD), ours.encode(sources))
    F.cross_entropy(ours.logits(hidden, slice(None)).flatten(0, 1), targets.flatten()).backward()
    theirs(input_ids=sources, labels=targets).loss.backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, reference[theirs_of(name)].grad, rtol=1e-4, atol=1e-5)


def test_weights_start_as_those_of_transformers(theirs: torch.nn.Module) -> None:
    torch.manual_seed(0)
    fresh = T5((400, 300), T5Config(width=64, layers=2))
    config = transformers.T5Config(vocab_size=701, d_model=64, d_kv=64, d_ff=1024, num_layers=2, num_heads=6)
    reference = dict(transformers.T5ForConditionalGeneration(config).named_parameters())
    for name, parameter in fresh.named_parameters():
        expected = reference[theirs_of(name)]
        assert parameter.shape == expected.shape, name
        error = 1 / math.sqrt(parameter.numel())  # of the ratio of two such standard deviations, one sigma
        assert parameter.std().item() == pytest.approx(expected.std().item(), rel=5 * error), name
        assert parameter.mean().item() == pytest.approx(expected.mean().item(), abs=0.1), name


def test_beams_and_scores_are_those_of_transformers_generate(ours: T5, theirs: torch.nn.Module) -> None:
    width, sources = 8, random_tokens((5, 12), 2)
    allowed: dict[tuple[int, ...], set[int]] = {}
    for leaf in LEAVES:
        path = [block.start + int(code) for block, code in zip(ours.blocks, leaf, strict=True)]
        for level in range(3):
            allowed.setdefault(tuple(path[:level]), set()).add(path[level])

    def level_softmax(prefix: Tensor, log_p: Tensor) -> Tensor:
        """Generate takes its softmax over all tokens; ours runs over those of the level."""
        return log_p - log_p[:, ours.blocks[prefix.shape[1] - 1]].logsumexp(1, keepdim=True)

    # Given as prefix_allowed_tokens_fn it would run before the softmax, which would then renormalise.
    only_the_catalogue = transformers.PrefixConstrainedLogitsProcessor(
        lambda _, prefix: sorted(allowed[tuple(prefix.tolist()[1:])]), num_beams=width
    )
    found = theirs.generate(
        input_ids=sources,
        attention_mask=torch.ones_like(sources),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=3,
        length_penalty=0.0,
        do_sample=False,
        logits_processor=transformers.LogitsProcessorList([level_softmax, only_the_catalogue]),
        return_dict_in_generate=True,
        output_scores=True,
    )
    with torch.no_grad():
        leaves, scores = beam_search(ours, Trie.build(LEAVES, SIZES), sources, width)
    starts = torch.tensor([block.start for block in ours.blocks])
    expected = (found.sequences[:, 1:] - starts).view(5, width, 3)
    assert torch.from_numpy(LEAVES)[leaves].tolist() == expected.tolist()
    torch.testing.assert_close(scores, found.sequences_scores.view(5, width), rtol=0, atol=1e-5)


def test_a_source_does_not_depend_on_the_padding_behind_it(ours: T5) -> None:
    alone, start = random_tokens((1, 6), 6), torch.full((1, 1), PAD)
    padded = F.pad(alone, (0, 9), value=PAD)
    hidden = ours.decode(start, ours.encode(alone))
    hidden_padded = ours.decode(start, ours.encode(padded))
    torch.testing.assert_close(hidden, hidden_padded, rtol=0, atol=1e-5)


def test_a_source_of_padding_alone_is_one_pad_that_counts(ours: T5, theirs: torch.nn.Module) -> None:
    pad = torch.full((1, 1), PAD)
    expected = theirs(input_ids=pad, attention_mask=torch.ones_like(pad), decoder_input_ids=pad).logits
    for length in (1, 12):
        hidden = ours.decode(pad, ours.encode(pad.expand(1, length)))
        torch.testing.assert_close(ours.logits(hidden, slice(None)), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_token_by_token_is_the_same_as_all_at_once(ours: T5) -> None:
    sources, tokens = random_tokens((2, 9), 7), random_tokens((6, 4), 8)  # three hypotheses a source
    memory = ours.encode(sources)
    at_once = ours.decode(tokens, memory)
    past: list[Steps] = []
    for step in range(4):
        hidden, past = ours.step(tokens[:, step], memory, past, torch.arange(6))
        torch.testing.assert_close(hidden, at_once[:, step], rtol=0, atol=1e-5)
    # … and a hypothesis is read against its own source, as if that source were repeated for it.
    repeated = ours.decode(tokens, ours.encode(sources.repeat_interleave(3, dim=0)))
    torch.testing.assert_close(at_once, repeated, rtol=0, atol=1e-5)


def test_tokens_of_levels_lie_behind_each_other() -> None:
    assert T5((3, 4), T5Config(width=8, layers=1)).blocks == [slice(1, 4), slice(4, 8)]


def test_a_text_is_read_as_tokens_that_a_linear_map_makes_of_it(ours: T5, theirs: torch.nn.Module) -> None:
    torch.manual_seed(1)
    model = T5(SIZES, CONFIG, others=4, text_width=6, text_tokens=2).eval()
    assert model.first_text == 1 + sum(SIZES) + 4
    weights = {name: value for name, value in ours.state_dict().items() if name != "embedding.weight"}
    assert set(model.load_state_dict(weights, strict=False).missing_keys) == {
        "embedding.weight",
        "project.weight",  # the texts themselves are no weights
    }
    model.embedding.weight.data[: len(ours.embedding.weight)] = ours.embedding.weight.data
    model.texts = F.normalize(torch.randn(3, 6), dim=1)
    first, user = model.first_text, 1 + sum(SIZES)
    sources = torch.tensor([[user, first + 4, first + 5, 3, 4], [user + 1, first, first + 1, 7, PAD]])

    embedded = model.embedding.weight[sources.clamp(max=first - 1)].clone()
    for row, text in enumerate((2, 0)):  # tokens 4 and 5 are those of text 2
        for number in range(2):
            of_token = model.project.weight[CONFIG.width * number : CONFIG.width * (number + 1)]
            embedded[row, 1 + number] = of_token @ model.texts[text]
    start = torch.full((2, 1), PAD)
    expected = theirs(
        inputs_embeds=embedded, attention_mask=(sources != PAD).long(), decoder_input_ids=start
    ).logits
    hidden = model.decode(start, model.encode(sources))
    logits = model.logits(hidden, slice(0, 1 + sum(SIZES)))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_a_text_of_length_one_becomes_as_large_as_embeddings() -> None:
    torch.manual_seed(0)
    model = T5(SIZES, T5Config(width=256, layers=1), text_width=50, text_tokens=4)
    embedded = model.project(F.normalize(torch.randn(20, 50), dim=1))
    assert embedded.std().item() == pytest.approx(1.0, abs=0.05)


def test_tokens_of_texts_take_no_random_numbers_from_the_other_weights() -> None:
    states = []
    for text_sizes in ({}, {"text_width": 6, "text_tokens": 2}):
        torch.manual_seed(0)
        states.append(T5(SIZES, CONFIG, **text_sizes).state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert set(states[1]) - set(states[0]) == {"project.weight"}
