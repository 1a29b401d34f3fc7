"""Learned tokenizers: an MLP autoencoder around a residual quantizer (RQ-VAE, residual GRIT-VQ)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice
from semantic_ids.nearest import in_equal_batches
from semantic_ids.quality import perplexity
from semantic_ids.randomness import default_device, seeded, shuffled_batches
from semantic_ids.residual import ResidualQuantizer
from semantic_ids.tokenizer import OnStep, Tokenizer, check_embeddings, check_sizes

_SEEDING_ROWS = 1 << 15
_REPORT_EVERY = 50


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them: ``widths[0] → … → widths[-1]``."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ResidualAutoencoder(Tokenizer):
    """Encoder → residual quantizer → decoder, trained to reconstruct the embeddings.

    TIGER's RQ-VAE (arXiv 2305.05065, §3.1) and, with GRIT's surrogate and transform, residual
    GRIT-VQ. Embeddings are centred and scaled to unit mean square first, so that one learning rate
    and one loss balance fit every text encoder; all losses are means over batch and features.

    Training has three parts: ``warmup`` of the steps without quantization, then k-means of the
    latents seeds the codebooks, then everything is trained together while codes that go unused
    are placed anew every ``reset_every`` steps (none in the last fifth, so that all can settle).

    Args:
        levels: L.
        codebook_size: K of every level.
        latent: width of the latents.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        surrogate: how gradients pass the quantizer, a choice of ``SURROGATES``.
        transform: how codewords share parameters, a choice of ``TRANSFORMS``.
        learning: how codewords and latents meet, a choice of ``LEARNINGS``.
        frozen: keep the seeded table and learn the transform only (GRIT-VQ's protocol A).
        steps: optimizer steps, warm-up included.
        batch_size: items a step.
        learning_rate: Adam's, with cosine decay.
        warmup: share of the steps before quantization starts.
        reset_every: steps between replacements of dead codes; 0 for never.
    """

    def __init__(
        self,
        *,
        levels: int = 4,
        codebook_size: int = 256,
        latent: int = 32,
        hidden: tuple[int, ...] = (512, 256, 128),
        surrogate: Choice = "straight-through",
        transform: Choice = "plain",
        learning: Choice = "gradient",
        frozen: bool = False,
        steps: int = 2000,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        warmup: float = 0.1,
        reset_every: int = 100,
    ) -> None:
        check_sizes(levels, codebook_size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1), not {warmup}")
        self.levels, self.codebook_size, self.latent = levels, codebook_size, latent
        self.hidden = list(hidden)
        self.surrogate, self.transform, self.learning = surrogate, transform, learning
        self.frozen, self.steps, self.batch_size = frozen, steps, batch_size
        self.learning_rate, self.warmup, self.reset_every = learning_rate, warmup, reset_every
        self.codebook_sizes = (codebook_size,) * levels
        with seeded(0):
            self._quantizer()  # a wrong choice is an error here, not after the data is read

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Train; see :meth:`Tokenizer.fit <semantic_ids.tokenizer.Tokenizer.fit>`.

        ``on_step`` gets ``loss``, ``reconstruction`` (share of the embeddings' variance that is
        lost), ``replaced`` (dead codes so far) and ``perplexity_1`` … every 50 steps.
        """
        embeddings = check_embeddings(embeddings, at_least=1)
        with seeded(seed):
            self.build({"width": embeddings.shape[1]})
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
        device = default_device()
        self.model.to(device)
        return in_equal_batches(self._encode, check_embeddings(embeddings), device)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, L)`` → embeddings ``(N, D)``."""
        device = default_device()
        self.model.to(device)
        return in_equal_batches(self._decode, codes, device)

    def facts(self) -> dict[str, Any]:
        """Codebook sizes, and the width of the embeddings."""
        return {**super().facts(), "width": len(self.mean)}

    def build(self, facts: Mapping[str, Any]) -> None:
        """Encoder, quantizer and decoder with fresh weights, for embeddings of ``facts["width"]``."""
        widths = [facts["width"], *self.hidden, self.latent]
        self.model = nn.ModuleDict(
            {"encoder": mlp(widths), "quantizer": self._quantizer(), "decoder": mlp(widths[::-1])}
        )

    def _quantizer(self) -> ResidualQuantizer:
        return ResidualQuantizer(
            self.codebook_sizes,
            self.latent,
            surrogate=self.surrogate,
            transform=self.transform,
            learning=self.learning,
            frozen=self.frozen,
        )

    def _train(self, x: Tensor, generator: torch.Generator, on_step: OnStep | None) -> None:
        encoder, quantizer, decoder = (self.model[part] for part in ("encoder", "quantizer", "decoder"))
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        first_quantized = int(self.warmup * self.steps)
        last_reset = int(0.8 * self.steps)
        replaced = 0
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
                lost = F.mse_loss(decoder(z), batch)
                loss = lost
            else:
                quantized = quantizer(z)
                lost = F.mse_loss(decoder(quantized.latents), batch)
                loss = lost + quantized.loss
            loss.backward()
            optimizer.step()
            schedule.step()
            age = step - first_quantized
            if self.reset_every and age > 0 and age % self.reset_every == 0 and step <= last_reset:
                replaced += quantizer.replace_dead_codes(z.detach(), generator)
            if on_step and step >= first_quantized and (step + 1) % _REPORT_EVERY == 0:
                metrics = {"loss": loss.item(), "reconstruction": lost.item(), "replaced": float(replaced)}
                for level in range(self.levels):
                    counts = torch.bincount(quantized.codes[:, level], minlength=self.codebook_size)
                    metrics[f"perplexity_{level + 1}"] = perplexity(counts.cpu().numpy())
                on_step(step + 1, metrics)

    def _encode(self, embeddings: Tensor) -> Tensor:
        x = (embeddings - self.mean.to(embeddings.device)) / self.scale.to(embeddings.device)
        return self.model["quantizer"].encode(self.model["encoder"](x))

    def _decode(self, codes: Tensor) -> Tensor:
        x = self.model["decoder"](self.model["quantizer"].decode(codes))
        return x * self.scale.to(x.device) + self.mean.to(x.device)
