from functools import partial

import torch
from spherical_kmeans import SphericalKMeans

from semantic_ids.testing import check_tokenizer


def test_it_is_a_tokenizer() -> None:
    check_tokenizer(partial(SphericalKMeans, levels=2, codebook_size=8))


def test_length_does_not_matter() -> None:
    x = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    tokenizer = SphericalKMeans(levels=3, codebook_size=8).fit(x)
    assert torch.equal(tokenizer.encode(4 * x), tokenizer.encode(x))
    assert len(tokenizer.encode(x).unique(dim=0)) > 50
