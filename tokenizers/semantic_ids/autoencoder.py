"""Learned tokenizers: an MLP autoencoder around a quantizer (RQ-VAE, residual GRIT-VQ and the others)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build, check_arguments
from semantic_ids.nearest import in_equal_batches
from semantic_ids.quantizers.quantizer import Quantizer
from semantic_ids.quantizers.safeguard import Safeguards
from semantic_ids.quantizers.scalar import SCALAR_QUANTIZERS
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import default_device, seeded, shuffled_batches
from semantic_ids.tokenizer import OnStep, Tokenizer, check_sizes

QUANTIZERS: dict[str, Callable[..., Quantizer]] = {"vector": VectorQuantizer, **SCALAR_QUANTIZERS}
_SEEDING_ROWS = 1 << 15
_REPORT_EVERY = 50


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them: ``widths[0] → … → widths[-1]``."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(Tokenizer):
    """Encoder → quantizer → decoder, trained to reconstruct the embeddings.

    TIGER's RQ-VAE (arXiv 2305.05065, §3.1) and, with GRIT's surrogate and transform, residual
    GRIT-VQ. Embeddings are centred and scaled to unit mean square first, so that one learning rate
    and one loss balance fit every text encoder; all losses are means over batch and features.

    Training has three parts: ``warmup`` of the steps without quantization, then the latents seed
    the codebooks, then everything is trained together while codes that go unused are placed anew
    every ``reset_every`` steps (none in the last fifth, so that all can settle).

    Args:
        levels: L.
        codebook_size: K of every level.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        quantizer: a choice of :data:`QUANTIZERS`; its arguments are those of
            :class:`~semantic_ids.quantizers.vector.VectorQuantizer`, or of the scalar quantizer named.
        steps: optimizer steps, warm-up included.
        batch_size: items a step.
        learning_rate: Adam's, with cosine decay.
        warmup: share of the steps before quantization starts.
        reset_every: steps between replacements of dead codes; 0 for never.
        safeguards: fields of :class:`~semantic_ids.quantizers.safeguard.Safeguards`.
    """

    def __init__(
        self,
        *,
        levels: int = 4,
        codebook_size: int = 256,
        hidden: tuple[int, ...] = (512, 256, 128),
        quantizer: Choice = "vector",
        steps: int = 2000,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        warmup: float = 0.1,
        reset_every: int = 100,
        safeguards: Mapping[str, float] | None = None,
    ) -> None:
        check_sizes(levels, codebook_size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1), not {warmup}")
        self.levels, self.codebook_size = levels, codebook_size
        self.hidden, self.quantizer = list(hidden), quantizer
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.warmup, self.reset_every = warmup, reset_every
        self.safeguards = dict(safeguards or {})
        self.codebook_sizes = (codebook_size,) * levels
        check_arguments("safeguards", Safeguards, self.safeguards)
        self._safeguards = Safeguards(**self.safeguards)
        with seeded(0):
            made = self._quantizer()  # a wrong choice is an error here, not after the data is read
        self._measures = type(made).last_level_distances is not Quantizer.last_level_distances

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Train; see :meth:`Tokenizer.fit <semantic_ids.tokenizer.Tokenizer.fit>`.

        Every 50 steps, or at the first reset of dead codes after as many, ``on_step`` gets ``loss``,
        ``reconstruction`` (share of the embeddings' variance that is lost), ``replaced`` (dead codes so
        far), ``interventions`` (of the safeguards so far) and the quantizer's
        :meth:`~semantic_ids.quantizers.quantizer.Quantizer.health`.
        """
        with seeded(seed):
            self.build({"fitted_width": embeddings.shape[1]})
            generator = torch.Generator().manual_seed(seed)
            self.mean = embeddings.mean(dim=0)
            self.scale = (embeddings - self.mean).square().mean().sqrt().clamp(min=1e-12)
            device = default_device()
            self.model.to(device)
            self._train(((embeddings - self.mean) / self.scale).to(device), generator, on_step)
            self.model.cpu().eval()
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, L)``; see :meth:`Tokenizer.encode`."""
        return self._batched(lambda x: self.model["quantizer"].encode(self._latents(x)), embeddings)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, L)`` → embeddings ``(N, D)``."""
        return self._batched(self._decode, codes)

    @property
    def measures_last_level(self) -> bool:
        """Whether the quantizer has codewords to measure distances to."""
        return self._measures

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → ``(N, K_L)``; see :meth:`Tokenizer.last_level_distances`."""
        return self._batched(
            lambda x: self.model["quantizer"].last_level_distances(self._latents(x)), embeddings
        )

    def build(self, facts: Mapping[str, Any]) -> None:
        """Encoder, quantizer and decoder with fresh weights, for embeddings of ``facts["fitted_width"]``."""
        quantizer = self._quantizer()
        widths = [facts["fitted_width"], *self.hidden, quantizer.dim]
        self.model = nn.ModuleDict(
            {"encoder": mlp(widths), "quantizer": quantizer, "decoder": mlp(widths[::-1])}
        )

    def _quantizer(self) -> Quantizer:
        return build("quantizer", QUANTIZERS, self.quantizer, codebook_sizes=self.codebook_sizes)

    def _batched(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        device = default_device()
        self.model.to(device)
        return in_equal_batches(function, rows, device)

    def _train(self, x: Tensor, generator: torch.Generator, on_step: OnStep | None) -> None:
        encoder, quantizer, decoder = (self.model[part] for part in ("encoder", "quantizer", "decoder"))
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        first_quantized = int(self.warmup * self.steps)
        last_reset = int(0.8 * self.steps)
        window = self.reset_every or _REPORT_EVERY
        report_every = window * -(-_REPORT_EVERY // window)
        replaced = interventions = 0
        batches = shuffled_batches(len(x), self.batch_size, generator)
        self.model.train()
        for step, rows in zip(range(self.steps), batches, strict=False):
            if step == first_quantized:
                with torch.no_grad():
                    some = torch.randperm(len(x), generator=generator)[:_SEEDING_ROWS]
                    quantizer.seed(encoder(x[some.to(x.device)]), generator)
            batch = x[rows.to(x.device)]
            optimizer.zero_grad(set_to_none=True)
            z = encoder(batch)
            if step < first_quantized:
                loss = F.mse_loss(decoder(z), batch)
            else:
                quantizer.set_progress((step - first_quantized) / (self.steps - first_quantized))
                quantized = quantizer(z)
                lost = F.mse_loss(decoder(quantized.latents), batch)
                loss = lost + quantized.loss
            loss.backward()
            optimizer.step()
            schedule.step()
            age = step + 1 - first_quantized
            if age <= 0:
                continue
            if age % report_every == 0:
                health = quantizer.health()
                interventions += len(self._safeguards.check(quantizer, health, z.detach(), generator))
                if on_step:
                    about = {"loss": loss.item(), "reconstruction": lost.item()}
                    counts = {"replaced": float(replaced), "interventions": float(interventions)}
                    on_step(step + 1, {**about, **counts, **health})
            if age % window == 0:
                if self.reset_every and step < last_reset:
                    replaced += quantizer.replace_dead_codes(z.detach(), generator)
                quantizer.clear_usage()

    def _latents(self, embeddings: Tensor) -> Tensor:
        x = (embeddings - self.mean.to(embeddings.device)) / self.scale.to(embeddings.device)
        return self.model["encoder"](x)

    def _decode(self, codes: Tensor) -> Tensor:
        x = self.model["decoder"](self.model["quantizer"].decode(codes))
        return x * self.scale.to(x.device) + self.mean.to(x.device)
