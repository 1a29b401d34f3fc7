"""What every tokenizer gets from its base class: checked embeddings and codes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semantic_ids.fitted import ResidualKMeans
from semantic_ids.product import ProductKMeans
from semantic_ids.tokenizer import Tokenizer
from semantic_ids.types import OnStep


class Recorder(Tokenizer):
    """One code for all; keeps what it was given."""

    codebook_sizes = (1,)

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Recorder:
        """Keep them."""
        self.fitted = embeddings
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        self._encoded = embeddings
        return torch.zeros(len(embeddings), 1, dtype=torch.int64)

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        self._encoded = embeddings
        return torch.zeros(len(embeddings), 1, dtype=torch.float64)


class FirstFeatures(ResidualKMeans):
    """k-means of the first two features only, by the methods of the class above."""

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> FirstFeatures:
        super().fit(embeddings[:, :2], seed=seed)
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings[:, :2])

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return super().last_level_distances(embeddings[:, :2])

    def decode(self, codes: Tensor) -> Tensor:
        """Codes counted from 1, which the class above would refuse."""
        return super().decode(codes - 1)


@pytest.mark.parametrize("method", ["encode", "last_level_distances"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int32])
def test_embeddings_arrive_as_float32(dtype: torch.dtype, method: str) -> None:
    x = torch.arange(6).reshape(3, 2).to(dtype)
    recorder = Recorder().fit(x)
    getattr(recorder, method)(x)
    for given in (recorder.fitted, recorder._encoded):
        assert given.dtype == torch.float32
        assert given.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_embeddings_that_need_no_change_are_not_copied() -> None:
    x = torch.ones(3, 2)
    assert Recorder().fit(x).fitted is x


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.ones(3), r"must be \(items, features\), not of shape \(3,\)"),
        (torch.ones(3, 0), r"must be \(items, features\), not of shape \(3, 0\)"),
        (torch.ones(0, 2), "0 embeddings are too few, at least 1 needed"),
        (torch.tensor([[1.0, 2.0], [float("nan"), 1.0]]), r"NaN or infinite values in 1 rows, first \[1\]"),
        (torch.tensor([[1.0, 1e300]], dtype=torch.float64), r"infinite values in 1 rows, first \[0\]"),
    ],
)
def test_nothing_is_learned_from_bad_embeddings(embeddings: Tensor, message: str) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match=message):
        recorder.fit(embeddings)
    assert recorder.fitted_width is None
    assert not hasattr(recorder, "fitted")


@pytest.mark.parametrize("method", ["encode", "last_level_distances"])
def test_what_was_fitted_only_is_taken(method: str) -> None:
    recorder = Recorder()
    call = getattr(recorder, method)
    with pytest.raises(ValueError, match="Recorder is not fitted yet; call fit first"):
        call(torch.ones(3, 2))
    recorder.fit(torch.ones(3, 2))
    with pytest.raises(ValueError, match="embeddings have 4 features, but 2 were fitted"):
        call(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 rows, first \[0\]"):
        call(torch.tensor([[float("nan"), 1.0]]))
    assert call(torch.ones(0, 2)).shape == (0, 1)
    recorder.fit(torch.ones(3, 4))
    assert call(torch.ones(1, 4)).tolist() == [[0]]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([0, 1]), r"codes must be \(items, 2\) int64, not int64 \(2,\)"),
        (torch.tensor([[0, 1, 0]]), r"codes must be \(items, 2\) int64, not int64 \(1, 3\)"),
        (torch.tensor([[0.0, 1.0]]), r"codes must be \(items, 2\) int64, not float32 \(1, 2\)"),
        (torch.tensor([[0, 1]], dtype=torch.int32), "not int32"),
        (torch.tensor([[0, 1], [0, -1]]), r"codes \[0, -1\] lie outside codebooks of \(4, 4\)"),
        (torch.tensor([[0, 1], [4, 0]]), r"codes \[4, 0\] lie outside codebooks of \(4, 4\)"),
    ],
)
@pytest.mark.parametrize("make", [ResidualKMeans, ProductKMeans])
def test_decode_takes_codes_only(
    make: type[ResidualKMeans | ProductKMeans], codes: Tensor, message: str
) -> None:
    tokenizer = make(levels=2, codebook_size=4)
    with pytest.raises(ValueError, match=f"{make.__name__} is not fitted yet; call fit first"):
        tokenizer.decode(codes)
    tokenizer.fit(torch.eye(5))
    with pytest.raises(ValueError, match=message):
        tokenizer.decode(codes)
    assert tokenizer.decode(torch.empty(0, 2, dtype=torch.int64)).shape == (0, 5)
    assert tokenizer.decode(torch.tensor([[3, 3]])).shape == (1, 5)


def test_a_tokenizer_that_is_not_fitted_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Recorder is not fitted yet; call fit first"):
        Recorder().save(tmp_path)


def test_the_width_is_remembered_by_what_is_loaded(tmp_path: Path) -> None:
    FirstFeatures(1, 2).fit(torch.eye(3)).save(tmp_path)
    with pytest.raises(ValueError, match="embeddings have 2 features, but 3 were fitted"):
        Tokenizer.load(tmp_path).encode(torch.eye(2))


def test_a_subclass_may_change_what_its_parent_sees() -> None:
    x = torch.tensor([[0.0, 0.0, 9.0], [1.0, 1.0, -9.0], [0.0, 0.0, 5.0]])
    tokenizer = FirstFeatures(levels=1, codebook_size=2).fit(x)
    first, second, third = tokenizer.encode(x).tolist()
    assert first == third != second
    assert tokenizer.fitted_width == 3
    assert tokenizer.last_level_distances(x).argmin(dim=1, keepdim=True).tolist() == [first, second, third]
    tokenizer.codebook_sizes = (3,)  # counted from 1
    assert tokenizer.decode(tokenizer.encode(x) + 1).tolist() == x[:, :2].tolist()


def test_methods_keep_their_names_and_signatures() -> None:
    assert inspect.getdoc(Recorder.fit) == "Keep them."
    assert list(inspect.signature(Recorder.fit).parameters) == ["self", "embeddings", "seed", "on_step"]


def test_a_class_without_encode_is_no_tokenizer() -> None:
    class Half(Tokenizer):
        def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Half:
            return self

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]
