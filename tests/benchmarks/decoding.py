"""What constrained decoding costs, beside transformers' ``generate`` with the same weights.

CPU seconds of one thread. TIGER's sizes: 4 + 4 layers, width 128, 6 × 64 heads, feed-forward 1,024,
4 × 256 codes, histories of up to 20 items. ``generate`` allocates much, and glibc's defaults hand
that back to the system each time; a run with ``MALLOC_TRIM_THRESHOLD_=4294967296
MALLOC_MMAP_THRESHOLD_=4294967296`` shows it without. Each table says which of the two it saw.
"""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from tests.recsys.test_t5 import theirs_of
from torch import Tensor

from recsys.decoding.beam_search import beam_search
from recsys.decoding.exact_search import exact_search
from recsys.decoding.trie import Trie
from recsys.models.t5 import PAD, T5
from recsys.models.t5_layers import T5Config
from semantic_ids.types import Ints
from tests.benchmarks.timing import in_turn, milliseconds, peak_growth, ratio, seconds

LEVELS, SIZE = 4, 256
MICRO_BATCH = 16
MALLOC = "tuned malloc" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "default malloc"
CONSOLE = Console()


def catalogue(items: int) -> Ints:
    """About so many random distinct leaves, in order."""
    paths = np.unique(np.random.default_rng(0).integers(0, SIZE**LEVELS, items))
    return np.stack([paths >> 8 * (LEVELS - 1 - level) & SIZE - 1 for level in range(LEVELS)], axis=1)


def sources_of(leaves: Ints, batch: int, size: int = SIZE) -> Tensor:
    """``(batch, S)``: histories of 1 to 20 random items, 9 in the mean, padding behind them."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.geometric(1 / 10, batch), 1, 20)
    tokens = leaves[rng.integers(0, len(leaves), (batch, 20))] + 1 + size * np.arange(leaves.shape[1])
    tokens[np.arange(20) >= lengths[:, None]] = PAD
    return torch.from_numpy(tokens[:, : lengths.max()].reshape(batch, -1))


def tiger(sizes: tuple[int, ...] = (SIZE,) * LEVELS) -> T5:
    """TIGER's default size, random weights."""
    torch.manual_seed(0)
    return T5(sizes, T5Config()).eval()


def transformers_of(model: T5) -> torch.nn.Module:
    """The same model in transformers."""
    config = transformers.T5Config(
        vocab_size=len(model.embedding.weight),
        d_model=128,
        d_kv=64,
        d_ff=1024,
        num_layers=4,
        num_heads=6,
        feed_forward_proj="relu",
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=None,
    )
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.load_state_dict(
        {theirs_of(name): value for name, value in model.state_dict().items()}, strict=False
    )
    return theirs


def allowed_tokens(leaves: Ints) -> Callable[[int, Tensor], list[int]]:
    """The usual dictionary of prefixes."""
    allowed: dict[tuple[int, ...], set[int]] = {}
    for path in (leaves + 1 + SIZE * np.arange(LEVELS)).tolist():
        for level in range(LEVELS):
            allowed.setdefault(tuple(path[:level]), set()).add(path[level])
    lists = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}
    return lambda _, prefix: lists[tuple(prefix.tolist()[1:])]


class VectorizedMask(transformers.LogitsProcessor):
    """All beams at once on a :class:`~recsys.decoding.trie.Trie`."""

    def __init__(self, trie: Trie) -> None:
        self.trie = trie

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        nodes = torch.zeros(len(input_ids), dtype=torch.int64)
        for level, tokens in enumerate(input_ids[:, 1:].T):
            children = self.trie.children(level, nodes)
            same = self.trie.codes(level, children) == (tokens - 1 - SIZE * level)[:, None]
            nodes = torch.where(same & (children >= 0), children, -1).amax(dim=1)
        level = input_ids.shape[1] - 1
        children = self.trie.children(level, nodes)
        tokens = torch.where(children < 0, PAD, self.trie.codes(level, children) + 1 + SIZE * level)
        mask = torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)
        mask[:, PAD] = -torch.inf
        return scores + mask


def generate(model: torch.nn.Module, sources: Tensor, width: int, **constraint: object) -> Tensor:
    """Beam search by transformers."""
    return model.generate(
        input_ids=sources,
        attention_mask=(sources != PAD).long(),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=LEVELS,
        length_penalty=0.0,
        do_sample=False,
        **constraint,
    )


def search(model: T5, trie: Trie, sources: Tensor, width: int) -> Tensor:
    """Beam search in micro-batches of like lengths, each padded to its own longest source."""
    lengths = (sources != PAD).sum(dim=1)
    order = lengths.argsort(stable=True)
    leaves = torch.empty(len(sources), width, dtype=torch.int64)
    for rows in order.split(MICRO_BATCH):
        leaves[rows], _ = beam_search(model, trie, sources[rows, : int(lengths[rows].max())], width)
    return leaves


def against_transformers() -> Table:
    """Users a second, and memory, side by side."""
    names = ("f32", "bf16", "dict", "mask")
    table = Table(
        "batch",
        "beam",
        *(f"{name}, ms" for name in ("f32", "bf16", "HF, dict trie", "HF, vectorized mask")),
        "users/s",
        "dict ÷ f32, bf16",
        "mask ÷ f32, bf16",
        "top 10 of bf16",
        "peak growth, MB",
        title=f"constrained decoding, 12,000 items, one thread, {MALLOC}",
    )
    leaves = catalogue(12_000)
    trie, model = Trie.build(leaves, (SIZE,) * LEVELS), tiger()
    half, theirs = copy.deepcopy(model).bfloat16(), transformers_of(model)
    dictionary = {"prefix_allowed_tokens_fn": allowed_tokens(leaves)}
    mask = {"logits_processor": transformers.LogitsProcessorList([VectorizedMask(trie)])}
    for batch, width, repetitions in ((1, 20, 5), (1, 50, 5), (32, 20, 3), (32, 50, 2), (256, 20, 0)):
        sources = sources_of(leaves, batch)
        works = (
            lambda s=sources, w=width: search(model, trie, s, w),
            lambda s=sources, w=width: search(half, trie, s, w),
            lambda s=sources, w=width: generate(theirs, s, w, **dictionary),
            lambda s=sources, w=width: generate(theirs, s, w, **mask),
        )
        first: list[float] = []
        # This run warms up, too, or is the only one.
        growth = [peak_growth(lambda work=work, first=first: first.append(seconds(work))) for work in works]
        rounds = [[seconds(work) for work in works] for _ in range(repetitions)] or [first]
        times = [list(of_work) for of_work in zip(*rounds, strict=True)]
        both = zip(works[0]()[:, :10].tolist(), works[1]()[:, :10].tolist(), strict=True)
        overlap = statistics.mean(len({*a} & {*b}) / 10 for a, b in both)
        of = dict(zip(names, times, strict=True))
        table.add_row(
            f"{batch}",
            f"{width}",
            *map(milliseconds, times),
            " / ".join(f"{batch / statistics.median(of[name]):.0f}" for name in names),
            *(f"{ratio(of[peer], of['f32'])} / {ratio(of[peer], of['bf16'])}" for peer in ("dict", "mask")),
            f"{overlap:.3f}",
            " / ".join(f"{megabytes:.0f}" for megabytes in growth),
        )
    return table


def catalogue_sizes() -> Table:
    """Building a trie, keeping it, and decoding a batch of 32 on it with a beam of 20."""
    table = Table(
        "items",
        "build, s",
        "build peak, MB",
        "kept, MB",
        "f32, ms",
        "bf16, ms",
        "÷ 12,000 items",
        title="tries",
    )
    model = tiger()
    half = copy.deepcopy(model).bfloat16()
    catalogues = [catalogue(items) for items in (12_000, 1_000_000, 10_000_000)]
    sources = sources_of(catalogues[0], 32)
    tries, costs = [], []
    for leaves in catalogues:
        built: list[Trie] = []
        growth = peak_growth(
            lambda built=built, leaves=leaves: built.append(Trie.build(leaves, (SIZE,) * LEVELS))
        )
        took = seconds(lambda leaves=leaves: Trie.build(leaves, (SIZE,) * LEVELS))
        kept = sum(part.nbytes for part in (*built[0].starts, *built[0].last_codes)) / 1e6
        tries += built
        costs.append((f"{len(leaves):,}", f"{took:.2f}", f"{growth:.0f}", f"{kept:.1f}"))
    times = [
        in_turn(*(lambda m=m, trie=trie: search(m, trie, sources, 20) for trie in tries))
        for m in (model, half)
    ]
    for at, cost in enumerate(costs):
        factors = [ratio(of_model[at], of_model[0]) for of_model in times]
        table.add_row(*cost, *(milliseconds(of_model[at]) for of_model in times), " / ".join(factors))
    return table


def beam_widths() -> Table:
    """A batch of 32 on 12,000 items."""
    table = Table("beam", "f32, ms", "bf16, ms", "f32 ÷ beam 10", title="width of the beam, batch 32")
    leaves = catalogue(12_000)
    trie, model = Trie.build(leaves, (SIZE,) * LEVELS), tiger()
    half, sources = copy.deepcopy(model).bfloat16(), sources_of(leaves, 32)
    widths = (10, 20, 50, 100)
    full, coarse = (
        in_turn(*(lambda m=m, w=w: search(m, trie, sources, w) for w in widths), repetitions=3)
        for m in (model, half)
    )
    for at, width in enumerate(widths):
        table.add_row(f"{width}", milliseconds(full[at]), milliseconds(coarse[at]), ratio(full[at], full[0]))
    return table


def exactness() -> Table:
    """The exact top 10 against a beam of 50, on models from flat to sure.

    Every path is an item: a model of random weights has not learned which IDs exist, and would put
    its mass where there is none.
    """
    table = Table(
        "nats a code",
        "recall of beam 10 / 20 / 50",
        "certified",
        "prefixes a query",
        "exact, ms",
        "beam 50, ms",
        "exact ÷ beam 50",
        title="exact top 10, batch 32, 14,641 items of 4 × 11 codes, f32",
    )
    sizes = (11,) * LEVELS
    leaves = np.array(list(np.ndindex(sizes)))
    trie, sources = Trie.build(leaves, sizes), sources_of(leaves, 32, 11)
    for sharpness in (1.0, 1.5, 2.0, 4.0):
        model = tiger(sizes)
        model.logit_scale *= sharpness
        expanded: list[int] = []
        norm = model.decoder_norm.register_forward_hook(lambda _, args, out, n=expanded: n.append(len(out)))
        found, _, certified = exact_search(model, trie, sources, 10)
        norm.remove()
        recalls = []
        for width in (10, 20, 50):
            beams, _ = beam_search(model, trie, sources, width)
            both = zip(found.tolist(), beams.tolist(), strict=True)
            recalls.append(statistics.mean(len({*exact} & {*beam}) / 10 for exact, beam in both))
        log_p = model.logits(model.decode(torch.zeros(32, 1).long(), model.encode(sources)), model.blocks[0])
        entropy = float(torch.distributions.Categorical(logits=log_p).entropy().mean())
        ours, beam = in_turn(
            lambda model=model: exact_search(model, trie, sources, 10),
            lambda model=model: beam_search(model, trie, sources, 50),
            repetitions=5,
        )
        table.add_row(
            f"{entropy:.2f}",
            " / ".join(f"{recall:.3f}" for recall in recalls),
            f"{certified.float().mean():.0%}",
            f"{sum(expanded) / 32:.0f}",
            milliseconds(ours),
            milliseconds(beam),
            ratio(ours, beam),
        )
    return table


@torch.inference_mode()
def main() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for table in (catalogue_sizes, beam_widths, exactness, against_transformers):
        CONSOLE.print(table())


if __name__ == "__main__":
    main()
