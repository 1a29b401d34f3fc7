"""The learned tokenizers: an MLP autoencoder around a quantizer (RQ-VAE, residual GRIT-VQ and others)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build, check_arguments
from semantic_ids.errors import TrainingDivergedError
from semantic_ids.nearest import in_equal_batches
from semantic_ids.quantizers.quantizer import Quantizer
from semantic_ids.quantizers.safeguard import Safeguards
from semantic_ids.quantizers.scalar import SCALAR_QUANTIZERS
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import default_device, seeded, shuffled_batches
from semantic_ids.ranges import check_numbers, check_sizes, check_whole, check_widths
from semantic_ids.tokenizer import Tokenizer
from semantic_ids.types import OnStep

QUANTIZERS: dict[str, Callable[..., Quantizer]] = {"vector": VectorQuantizer, **SCALAR_QUANTIZERS}
"""Quantizers by the names that configurations use."""

_SEEDING_ROWS = 1 << 15
_REPORT_EVERY = 50

_JUDGED_ROWS = 1 << 12
"""Number of embeddings, evenly spaced, whose reconstruction decides whether a training diverged."""

_DIVERGED = 10.0
"""Reconstruction error, as a multiple of the embeddings' variance, from which on a training has diverged."""


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Build linear layers with ReLU between them: ``widths[0] → … → widths[-1]``."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(Tokenizer):
    """A tokenizer with an encoder, a quantizer and a decoder, trained to reconstruct the embeddings.

    It is TIGER's RQ-VAE (arXiv 2305.05065, §3.1). With GRIT's surrogate and transform it is residual
    GRIT-VQ. Embeddings are first centred and scaled to unit mean square. So one learning rate and one
    balance of the losses fit every text encoder. All losses are means over batch and features.

    Training has three parts. First a share ``warmup`` of the steps runs without quantization. Then the
    latents seed the codebooks. Then all parts are trained together, and every ``reset_every`` steps dead
    codes are replaced. In the last fifth of the steps none are replaced, so that all codes can settle.

    Args:
        levels: Number of levels L.
        codebook_size: Number of codes K of every level.
        hidden: Widths of the encoder's hidden layers; the decoder has the same in reverse order.
        quantizer: A choice of :data:`QUANTIZERS`, with the arguments of
            :class:`~semantic_ids.quantizers.vector.VectorQuantizer` or of the named scalar quantizer.
        steps: Number of optimizer steps, including the warm-up.
        batch_size: Number of items in a step.
        learning_rate: Adam's learning rate at the start; it decays along a cosine.
        warmup: Share of the steps before quantization starts, in [0, 1).
        reset_every: Number of steps between replacements of dead codes; 0 to replace none.
        safeguards: Fields of :class:`~semantic_ids.quantizers.safeguard.Safeguards`; no limits by default.

    Raises:
        ValueError: If a number is out of range, or if a choice or one of its arguments is wrong.
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
        check_widths("hidden", hidden)
        check_whole(steps=steps, batch_size=batch_size)
        check_whole(0, reset_every=reset_every)
        check_numbers(0, above=True, learning_rate=learning_rate)
        check_numbers(0, 1, below=True, warmup=warmup)
        self.levels, self.codebook_size = levels, codebook_size
        self.hidden, self.quantizer = list(hidden), quantizer
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.warmup, self.reset_every = warmup, reset_every
        check_arguments("safeguards", Safeguards, safeguards or {})
        self.safeguards = dict(safeguards or {})
        self.codebook_sizes = (codebook_size,) * levels
        self._safeguards = Safeguards(**self.safeguards)
        with seeded(0):
            # Built here too, so that a wrong choice is an error before any data is read.
            quantizer_type = type(self._build_quantizer())
        self._measures_last_level = quantizer_type.last_level_distances is not Quantizer.last_level_distances

    @classmethod
    def upgraded(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return saved constructor arguments with the quantizer's options in their present groups.

        In version 0.1.0 the options of ``codebook`` and ``upkeep`` were arguments of the quantizer itself.
        """
        choice = params.get("quantizer")
        if not isinstance(choice, Mapping):
            return params
        moved = getattr(QUANTIZERS.get(choice.get("name", "")), "moved_arguments", {})
        quantizer = {name: value for name, value in choice.items() if name not in moved}
        for name, place in moved.items():
            if name in choice:
                group, _, option = place.partition(".")
                quantizer[group] = {**quantizer.get(group, {}), option: choice[name]}
        return {**params, "quantizer": quantizer}

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Train on the embeddings; see :meth:`Tokenizer.fit <semantic_ids.tokenizer.Tokenizer.fit>`.

        Args:
            embeddings: ``(N, D)`` float32.
            seed: Seed of all random draws.
            on_step: Function that gets a step and its metrics. It is called every 50 steps after the
                warm-up. If ``reset_every`` is not 0, it is called every m steps instead, with m the smallest
                multiple of ``reset_every`` that is at least 50. The metrics are ``loss``,
                ``reconstruction`` (share of the embeddings' variance that is lost), ``replaced`` (number of
                dead codes replaced on schedule so far), ``interventions`` (number of repairs by safeguards
                so far) and those of :meth:`~semantic_ids.quantizers.quantizer.Quantizer.health`.

        Raises:
            TrainingDivergedError: If the loss or a weight is NaN or infinite, or if the reconstruction error
                at the end is ten times the variance of the embeddings or more.
        """
        with seeded(seed):
            self.build({"fitted_width": embeddings.shape[1]})
            generator = torch.Generator().manual_seed(seed)
            self.mean = embeddings.mean(dim=0)
            self.scale = (embeddings - self.mean).square().mean().sqrt().clamp(min=1e-12)
            device = default_device()
            self.model.to(device)
            try:
                self._train(((embeddings - self.mean) / self.scale).to(device), generator, on_step)
            except RuntimeError as error:  # of a decomposition that does not take NaN, for example
                self._require_finite_weights(error)
                raise
            self._require_finite_weights()
            self.model.cpu().eval()
            self._judge_reconstruction(embeddings[:: -(-len(embeddings) // _JUDGED_ROWS)])
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of embeddings, ``(N, D)`` → ``(N, L)`` int64."""
        return self._in_batches(lambda x: self.model["quantizer"].encode(self._latents(x)), embeddings)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstructed embeddings of codes, ``(N, L)`` → ``(N, D)``."""
        return self._in_batches(self._decode, codes)

    @property
    def measures_last_level(self) -> bool:
        """Whether the quantizer has codewords to measure distances to."""
        return self._measures_last_level

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """Return squared distances from the last level's residuals to its codewords.

        Args:
            embeddings: ``(N, D)`` float32.

        Returns:
            ``(N, K_L)`` float64, in the unit of the latents; see :meth:`Tokenizer.last_level_distances`.
        """
        return self._in_batches(
            lambda x: self.model["quantizer"].last_level_distances(self._latents(x)), embeddings
        )

    def build(self, facts: Mapping[str, Any]) -> None:
        """Build encoder, quantizer and decoder with new weights, for width ``facts["fitted_width"]``."""
        quantizer = self._build_quantizer()
        widths = [facts["fitted_width"], *self.hidden, quantizer.dim]
        self.model = nn.ModuleDict(
            {"encoder": mlp(widths), "quantizer": quantizer, "decoder": mlp(widths[::-1])}
        )

    def _build_quantizer(self) -> Quantizer:
        """Build the chosen quantizer with new weights."""
        return build("quantizer", QUANTIZERS, self.quantizer, codebook_sizes=self.codebook_sizes)

    def _in_batches(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Apply ``function``, which uses the model, to batches of rows on the default device."""
        device = default_device()
        self.model.to(device)
        return in_equal_batches(function, rows, device)

    def _train(self, x: Tensor, generator: torch.Generator, on_step: OnStep | None) -> None:
        """Train the model on scaled embeddings ``(N, D)``."""
        encoder, quantizer, decoder = (self.model[part] for part in ("encoder", "quantizer", "decoder"))
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps))
        first_quantized = int(self.warmup * self.steps)
        last_reset = int(0.8 * self.steps)
        # Usage is counted over this many steps. Reports come at the end of a count.
        count_steps = self.reset_every or _REPORT_EVERY
        report_every = count_steps * -(-_REPORT_EVERY // count_steps)
        loss, replaced, interventions = torch.zeros(()), 0, 0
        batches = shuffled_batches(len(x), self.batch_size, generator)
        self.model.train()
        for step, rows in zip(range(self.steps), batches, strict=False):
            if step == first_quantized:
                self._require_finite_loss(loss, step)
                with torch.no_grad():
                    sample = torch.randperm(len(x), generator=generator)[:_SEEDING_ROWS]
                    quantizer.seed(encoder(x[sample.to(x.device)]), generator)
            batch = x[rows.to(x.device)]
            optimizer.zero_grad(set_to_none=True)
            z = encoder(batch)
            if step < first_quantized:
                loss = F.mse_loss(decoder(z), batch)
            else:
                quantizer.set_progress((step - first_quantized) / (self.steps - first_quantized))
                quantized = quantizer(z)
                reconstruction = F.mse_loss(decoder(quantized.latents), batch)
                loss = reconstruction + quantized.loss
            loss.backward()
            optimizer.step()
            schedule.step()
            quantized_steps = step + 1 - first_quantized
            if quantized_steps <= 0:
                continue
            if quantized_steps % report_every == 0:
                self._require_finite_loss(loss, step + 1)
                health = quantizer.health()
                interventions += len(self._safeguards.check(quantizer, health, z.detach(), generator))
                if on_step:
                    losses = {"loss": loss.item(), "reconstruction": reconstruction.item()}
                    counts = {"replaced": float(replaced), "interventions": float(interventions)}
                    on_step(step + 1, {**losses, **counts, **health})
            if quantized_steps % count_steps == 0:
                if self.reset_every and step < last_reset:
                    replaced += quantizer.replace_dead_codes(z.detach(), generator)
                quantizer.clear_usage()

    def _require_finite_loss(self, loss: Tensor, step: int) -> None:
        """Raise a :class:`TrainingDivergedError` if the loss of a step is NaN or infinite."""
        if not math.isfinite(loss.item()):
            raise self._diverged(f"the training loss is {loss.item()} by step {step}")

    def _require_finite_weights(self, cause: Exception | None = None) -> None:
        """Raise a :class:`TrainingDivergedError`, because of ``cause``, if a weight is NaN or infinite."""
        for name, value in self.model.state_dict().items():
            if not value.isfinite().all():
                raise self._diverged(f"the weights {name} are NaN or infinite after training") from cause

    def _judge_reconstruction(self, embeddings: Tensor) -> None:
        """Compare the reconstruction error of embeddings with their variance, after training.

        The mean of all embeddings has an error of 1, so codes with a larger error say nothing. An error that
        is far larger shows that the training diverged, although all numbers are finite.

        Raises:
            TrainingDivergedError: If the error is 10 or more.
        """
        x = (embeddings - self.mean) / self.scale
        encoder, quantizer, decoder = (self.model[part] for part in ("encoder", "quantizer", "decoder"))
        decoded = self._in_batches(lambda rows: decoder(quantizer.decode(quantizer.encode(encoder(rows)))), x)
        self.model.cpu()
        error = float(F.mse_loss(decoded, x) / x.square().mean().clamp(min=1.0))
        if not error < _DIVERGED:
            raise self._diverged(f"the reconstruction error is {error:.3g} times the embeddings' variance")
        if error > 1:
            warnings.warn(
                f"the codes say little about the items: their reconstruction has an error of {error:.2f} "
                "times the embeddings' variance, where the mean embedding has 1; try more steps than "
                f"{self.steps}, or a smaller learning_rate than {self.learning_rate}",
                RuntimeWarning,
                stacklevel=4,
            )

    def _diverged(self, what: str) -> TrainingDivergedError:
        """Return the error for a training that went astray, with what to change."""
        return TrainingDivergedError(
            f"{what}, so the tokenizer's training diverged; try a smaller learning_rate than "
            f"{self.learning_rate}"
        )

    def _latents(self, embeddings: Tensor) -> Tensor:
        """Return the latents of embeddings before quantization."""
        x = (embeddings - self.mean.to(embeddings.device)) / self.scale.to(embeddings.device)
        return self.model["encoder"](x)

    def _decode(self, codes: Tensor) -> Tensor:
        """Return the reconstructed embeddings of codes, in one batch."""
        x = self.model["decoder"](self.model["quantizer"].decode(codes))
        return x * self.scale.to(x.device) + self.mean.to(x.device)
