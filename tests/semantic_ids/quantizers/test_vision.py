"""A quantizer in a convolutional autoencoder: images of digits through a small grid of codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from semantic_ids.quantizers.quantizer import Quantized
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded, shuffled_batches

SIZES = (32, 32)
STEPS, LAST_REPLACEMENT, WINDOW = 160, 120, 20
GRIT: dict[str, Any] = {"surrogate": "grit", "transform": "low-rank"}


class DigitAutoencoder(nn.Module):
    """``(B, 1, 8, 8)`` → latents on a grid of 4 × 4 → the same again."""

    def __init__(self, **choices: Any) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1)
        )
        self.quantizer = VectorQuantizer(SIZES, 16, **choices)
        self.decoder = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 2, stride=2)
        )

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images).movedim(1, -1)

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        quantized = self.quantizer(self.latents(images))
        return self.decoder(quantized.latents.movedim(-1, 1)), quantized


def digits() -> tuple[Tensor, Tensor]:
    """For training and held out."""
    images = torch.from_numpy(load_digits().images).float()[:, None] / 16
    return images[:1500], images[1500:]


def train(images: Tensor, **choices: Any) -> DigitAutoencoder:
    with seeded(0):
        model = DigitAutoencoder(**choices)
    generator = torch.Generator().manual_seed(0)
    model.quantizer.seed(model.latents(images[:300]), generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batches = shuffled_batches(len(images), 64, generator)
    for step, rows in zip(range(1, STEPS + 1), batches, strict=False):
        optimizer.zero_grad()
        output, quantized = model(images[rows])
        (F.mse_loss(output, images[rows]) + quantized.loss).backward()
        optimizer.step()
        if step % WINDOW == 0 and step <= LAST_REPLACEMENT:
            model.quantizer.replace_dead_codes(model.latents(images[rows]), generator)
            model.quantizer.clear_usage()
    return model.eval()


@pytest.mark.parametrize(
    "choices", [pytest.param({}, marks=pytest.mark.slow), GRIT], ids=["straight-through", "grit"]
)
def test_held_out_digits_are_reconstructed_with_all_codes_in_use(choices: dict[str, Any]) -> None:
    images, held_out = digits()
    model = train(images, **choices)
    with torch.no_grad():
        output, quantized = model(held_out)
    assert quantized.codes.shape == (len(held_out), 4, 4, len(SIZES))
    mean_image = images.mean(dim=0).expand_as(held_out)
    assert F.mse_loss(output, held_out) < 0.25 * F.mse_loss(mean_image, held_out)
    health = model.quantizer.health()
    assert all(health[f"utilization_{level}"] == 1 for level in (1, 2)), health
    # The codes are all that the decoder needs.
    again = model.decoder(model.quantizer.decode(quantized.codes).movedim(-1, 1))
    torch.testing.assert_close(again, output)
