"""Product quantization: each level codes its own part of the embedding, after a rotation or without."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from semantic_ids.kmeans import cluster_means, kmeans
from semantic_ids.nearest import in_equal_batches, nearest, squared_distances
from semantic_ids.randomness import default_device
from semantic_ids.tokenizer import OnStep, Tokenizer, check_sizes


class ProductKMeans(Tokenizer):
    """k-means of each of L blocks of the embedding's features (product quantization, Jégou et al. 2011).

    Where L does not divide D, the first blocks are one feature wider. With ``rotate`` it is OPQ (Ge et
    al. 2013, "Optimized Product Quantization for Approximate Nearest Neighbor Search", non-parametric):
    the features are those of a rotation, which starts as :func:`balanced_pca`. Each round then finds the
    best rotation onto the present reconstruction and takes one step of k-means, neither of which can
    make the reconstruction worse.

    Args:
        levels: L.
        codebook_size: K of every level.
        iterations: Lloyd iterations of each level's k-means, before the rounds, at the most.
        rotate: learn a rotation.
        rounds: of learning it.
    """

    def __init__(
        self,
        levels: int = 4,
        codebook_size: int = 256,
        iterations: int = 50,
        rotate: bool = False,
        rounds: int = 30,
    ) -> None:
        check_sizes(levels, codebook_size)
        self.levels, self.codebook_size, self.iterations = levels, codebook_size, iterations
        self.rotate, self.rounds = rotate, rounds
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Fit; ``on_step`` gets ``reconstruction``, the share of variance lost, at first and each round.

        Raises:
            ValueError: the embeddings have fewer features than there are levels.
        """
        width = embeddings.shape[1]
        if width < self.levels:
            raise ValueError(f"{self.levels} levels cannot share embeddings of {width} features")
        generator = torch.Generator().manual_seed(seed)
        x = embeddings.to(default_device())
        mean = x.mean(dim=0)
        x = x - mean
        spread = x.square().mean().clamp(min=1e-12)
        rotation = balanced_pca(x, self.levels) if self.rotate else torch.eye(width, device=x.device)
        rotated = x @ rotation
        books = [
            kmeans(block, self.codebook_size, generator=generator, iterations=self.iterations)
            for block in rotated.tensor_split(self.levels, dim=1)
        ]
        rounds = self.rounds if self.rotate else 0
        for step in range(rounds + 1):
            quantized = _decode(books, _encode(books, rotated))
            if on_step:
                on_step(step + 1, {"reconstruction": float((quantized - rotated).square().mean() / spread)})
            if step < rounds:
                rotation = procrustes(x, quantized)
                rotated = x @ rotation
                blocks = rotated.tensor_split(self.levels, dim=1)
                books = [
                    cluster_means(block, nearest(block, book), book)[0]
                    for block, book in zip(blocks, books, strict=True)
                ]
        self.mean, self.rotation, self.codebooks = mean.cpu(), rotation.cpu(), torch.cat(books, dim=1).cpu()
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, L)``."""
        device = default_device()
        mean, rotation, books = self._fitted(device)
        return in_equal_batches(lambda rows: _encode(books, (rows - mean) @ rotation), embeddings, device)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, L)`` → their centres side by side, rotated back ``(N, D)``."""
        device = default_device()
        mean, rotation, books = self._fitted(device)
        return in_equal_batches(lambda rows: _decode(books, rows) @ rotation.T + mean, codes, device)

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → ``(N, K)`` float64: the last block of features, against its centres."""
        device = default_device()
        mean, rotation, books = self._fitted(device)

        def distances(rows: Tensor) -> Tensor:
            *_, block = ((rows - mean) @ rotation).tensor_split(self.levels, dim=1)
            return squared_distances(block, books[-1])

        return in_equal_batches(distances, embeddings, device)

    def _fitted(self, device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean, rotation and each level's centres, which stand side by side in ``codebooks`` ``(K, D)``."""
        books = self.codebooks.to(device).tensor_split(self.levels, dim=1)
        return self.mean.to(device), self.rotation.to(device), list(books)


def balanced_pca(x: Tensor, blocks: int) -> Tensor:
    """The principal axes of centred ``x`` ``(n, D)``, dealt out so that blocks carry alike (Ge et al. 2013).

    That is their eigenvalue allocation, best for Gaussian data: the axis of the next largest variance
    goes to the block, among those not full, whose variances have the smallest product. Variances are
    in units of the smallest, or else small ones would make a product smaller yet.

    Returns:
        ``(D, D)`` orthogonal; its columns are the axes, those of the first block first.
    """
    variances, axes = torch.linalg.eigh((x.T @ x).cpu().double())
    variances = variances.clamp(min=float(variances[-1]) * 1e-12 + 1e-300).log()
    width = x.shape[1]
    room = [len(part) for part in torch.arange(width).tensor_split(blocks)]
    members: list[list[int]] = [[] for _ in range(blocks)]
    product = [0.0] * blocks
    for axis in reversed(range(width)):
        block = min((b for b in range(blocks) if len(members[b]) < room[b]), key=product.__getitem__)
        members[block].append(axis)
        product[block] += float(variances[axis] - variances[0])
    return axes[:, [axis for block in members for axis in block]].to(x)


def procrustes(x: Tensor, y: Tensor) -> Tensor:
    """The orthogonal matrix ``R`` ``(D, D)`` with the least ``‖xR − y‖²``, for ``x`` and ``y`` ``(n, D)``."""
    left, _, right = torch.linalg.svd((x.T @ y).cpu().double())
    return (left @ right).to(x)


def _encode(books: list[Tensor], rotated: Tensor) -> Tensor:
    """``(n, D)`` → in each block the nearest centre ``(n, L)``."""
    blocks = rotated.tensor_split(len(books), dim=1)
    return torch.stack([nearest(block, book) for block, book in zip(blocks, books, strict=True)], dim=1)


def _decode(books: list[Tensor], codes: Tensor) -> Tensor:
    """Codes ``(n, L)`` → their centres side by side ``(n, D)``."""
    return torch.cat([book[codes[:, level]] for level, book in enumerate(books)], dim=1)
