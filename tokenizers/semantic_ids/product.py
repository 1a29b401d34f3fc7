"""Product quantization: each level encodes its own part of the embedding, which may be rotated first."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from semantic_ids.kmeans import cluster_means, kmeans
from semantic_ids.nearest import in_equal_batches, nearest, squared_distances
from semantic_ids.randomness import default_device
from semantic_ids.ranges import check_sizes, check_whole
from semantic_ids.tokenizer import Tokenizer
from semantic_ids.types import OnStep


class ProductKMeans(Tokenizer):
    """Product quantization (Jégou et al. 2011): a k-means of each of L blocks of the embedding's features.

    If L does not divide D, the first blocks are one feature wider. With ``rotate`` it is OPQ (Ge et
    al. 2013, "Optimized Product Quantization for Approximate Nearest Neighbor Search", non-parametric): the
    embeddings are rotated before they are split into blocks. The rotation starts as :func:`balanced_pca`.
    Then each round finds the best rotation onto the current reconstruction and takes one step of k-means.
    Neither of the two can make the reconstruction worse.

    Args:
        levels: Number of levels L.
        codebook_size: Number of codes K of every level.
        iterations: Largest number of Lloyd iterations in each level's k-means, before the rounds.
        rotate: True to learn a rotation.
        rounds: Number of rounds in which the rotation is learned.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> embeddings = torch.tensor([[0.0, 5.0], [0.0, 7.0], [3.0, 5.0], [3.0, 7.0]])
        >>> tokenizer = ProductKMeans(levels=2, codebook_size=2).fit(embeddings)
        >>> tokenizer.decode(tokenizer.encode(embeddings)).tolist()
        [[0.0, 5.0], [0.0, 7.0], [3.0, 5.0], [3.0, 7.0]]
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
        check_whole(iterations=iterations)
        self.levels, self.codebook_size, self.iterations = levels, codebook_size, iterations
        check_whole(0, rounds=rounds)
        self.rotate, self.rounds = rotate, rounds
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Fit the codebooks and, with ``rotate``, the rotation.

        Args:
            embeddings: ``(N, D)`` float32.
            seed: Seed of k-means.
            on_step: Function that gets ``reconstruction``, the share of the embeddings' variance that is
                lost, first at step 1 after k-means and then after every round.

        Raises:
            ValueError: If the embeddings have fewer features than there are levels.
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
        codebooks = [
            kmeans(block, self.codebook_size, generator=generator, iterations=self.iterations)
            for block in rotated.tensor_split(self.levels, dim=1)
        ]
        rounds = self.rounds if self.rotate else 0
        for step in range(rounds + 1):
            quantized = _decode(codebooks, _encode(codebooks, rotated))
            if on_step:
                on_step(step + 1, {"reconstruction": float((quantized - rotated).square().mean() / spread)})
            if step < rounds:
                rotation = procrustes(x, quantized)
                rotated = x @ rotation
                blocks = rotated.tensor_split(self.levels, dim=1)
                codebooks = [
                    cluster_means(block, nearest(block, codewords), codewords)[0]
                    for block, codewords in zip(blocks, codebooks, strict=True)
                ]
        self.mean, self.rotation = mean.cpu(), rotation.cpu()
        self.codebooks = torch.cat(codebooks, dim=1).cpu()
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of embeddings, ``(N, D)`` → ``(N, L)`` int64."""
        device = default_device()
        mean, rotation, codebooks = self._fitted_parameters(device)
        return in_equal_batches(lambda rows: _encode(codebooks, (rows - mean) @ rotation), embeddings, device)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the concatenated codewords of codes, rotated back, ``(N, L)`` → ``(N, D)``."""
        device = default_device()
        mean, rotation, codebooks = self._fitted_parameters(device)
        return in_equal_batches(lambda rows: _decode(codebooks, rows) @ rotation.T + mean, codes, device)

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """Return squared distances from the last block of features to its codewords.

        Args:
            embeddings: ``(N, D)`` float32.

        Returns:
            ``(N, K)`` float64.
        """
        device = default_device()
        mean, rotation, codebooks = self._fitted_parameters(device)

        def distances(rows: Tensor) -> Tensor:
            *_, block = ((rows - mean) @ rotation).tensor_split(self.levels, dim=1)
            return squared_distances(block, codebooks[-1])

        return in_equal_batches(distances, embeddings, device)

    def _fitted_parameters(self, device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return mean, rotation and each level's codewords, split from ``codebooks`` ``(K, D)``."""
        codebooks = self.codebooks.to(device).tensor_split(self.levels, dim=1)
        return self.mean.to(device), self.rotation.to(device), list(codebooks)


def balanced_pca(x: Tensor, blocks: int) -> Tensor:
    """Distribute the principal axes over blocks so that all blocks have similar variance (Ge et al. 2013).

    This is the paper's eigenvalue allocation, which is optimal for Gaussian data. The axis with the
    next largest variance goes to the block with the smallest product of variances, among the blocks that
    are not full. Variances are in units of the smallest one, because a variance below 1 would make a
    product smaller instead of larger.

    Args:
        x: Centred vectors ``(n, D)``.
        blocks: Number of blocks.

    Returns:
        ``(D, D)`` orthogonal. Its columns are the axes, in the order of the blocks.
    """
    variances, axes = torch.linalg.eigh((x.T @ x).cpu().double())
    log_variances = variances.clamp(min=float(variances[-1]) * 1e-12 + 1e-300).log()
    width = x.shape[1]
    capacity = [len(part) for part in torch.arange(width).tensor_split(blocks)]
    block_axes: list[list[int]] = [[] for _ in range(blocks)]
    log_product = [0.0] * blocks
    for axis in reversed(range(width)):
        not_full = (b for b in range(blocks) if len(block_axes[b]) < capacity[b])
        block = min(not_full, key=log_product.__getitem__)
        block_axes[block].append(axis)
        log_product[block] += float(log_variances[axis] - log_variances[0])
    return axes[:, [axis for members in block_axes for axis in members]].to(x)


def procrustes(x: Tensor, y: Tensor) -> Tensor:
    """Return the orthogonal matrix ``R`` ``(D, D)`` with the smallest ``‖xR − y‖²``.

    Args:
        x: ``(n, D)``.
        y: ``(n, D)``.

    Example:
        >>> procrustes(torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).round().tolist()
        [[0.0, 1.0], [-1.0, 0.0]]
    """
    left, _, right = torch.linalg.svd((x.T @ y).cpu().double())
    return (left @ right).to(x)


def _encode(codebooks: list[Tensor], rotated: Tensor) -> Tensor:
    """Return the nearest codeword in each block of rotated embeddings, ``(n, D)`` → ``(n, L)``."""
    blocks = rotated.tensor_split(len(codebooks), dim=1)
    return torch.stack(
        [nearest(block, codewords) for block, codewords in zip(blocks, codebooks, strict=True)], dim=1
    )


def _decode(codebooks: list[Tensor], codes: Tensor) -> Tensor:
    """Return the concatenated codewords of codes, ``(n, L)`` → ``(n, D)``, without rotating back."""
    return torch.cat([codewords[codes[:, level]] for level, codewords in enumerate(codebooks)], dim=1)
