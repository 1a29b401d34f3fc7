"""What every tokenizer gets from its base class: checked embeddings and codes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semantic_ids.errors import ContractError, TrainingDivergedError
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
        return F.pad(super().decode(codes - 1), (0, 1))


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
    assert tokenizer.decode(tokenizer.encode(x) + 1).tolist() == F.pad(x[:, :2], (0, 1)).tolist()


def test_methods_keep_their_names_and_signatures() -> None:
    assert inspect.getdoc(Recorder.fit) == "Keep them."
    assert list(inspect.signature(Recorder.fit).parameters) == ["self", "embeddings", "seed", "on_step"]


def test_a_class_without_encode_is_no_tokenizer() -> None:
    class Half(Tokenizer):
        def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Half:
            return self

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


class Mixin:
    """Encodes beside :class:`Tokenizer`, not under it."""

    def encode(self, embeddings: Tensor) -> Tensor:
        return torch.full((len(embeddings), 1), 7)


class FromMixin(Mixin, Recorder):
    pass


class Returns(Recorder):
    """Returns what it is given."""

    codebook_sizes = (4, 4)

    def __init__(self, codes: object = None, decoded: object = None, distances: object = None) -> None:
        self._codes, self._decoded, self._distances = codes, decoded, distances

    def encode(self, embeddings: Tensor) -> Tensor:
        return self._codes  # type: ignore[return-value]

    def decode(self, codes: Tensor) -> Tensor:
        return self._decoded  # type: ignore[return-value]

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return self._distances  # type: ignore[return-value]


ZEROS = torch.zeros(3, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (ZEROS.float() * torch.nan, "codes of dtype float32 on cpu; return int64 on the CPU"),
        (
            (ZEROS.float() * torch.nan).long(),
            r"codes like \[-9223372036854775808, -9223372036854775808\], in",
        ),
        (
            ZEROS + 4,
            r"codes like \[4, 4\], in row 0; keep level l in 0 … K_l - 1, of codebook_sizes \(4, 4\)",
        ),
        (torch.tensor([[0, 0], [3, -1], [0, 0]]), r"codes like \[3, -1\], in row 1"),
        (ZEROS[:2], r"codes of shape \(2, 2\) for 3 items; codebook_sizes \(4, 4\) ask for \(3, 2\)"),
        (ZEROS[:, 0], r"codes of shape \(3,\) for 3 items"),
        (ZEROS.int(), "codes of dtype int32"),
        (ZEROS.to("meta"), "codes of dtype int64 on meta; return int64 on the CPU"),
        (ZEROS.numpy(), r"gave a ndarray; return a tensor of codes, \(3, 2\)"),
        (None, "gave a NoneType"),
    ],
)
def test_wrong_codes_never_leave_encode(codes: object, message: str) -> None:
    with pytest.raises(ContractError, match=f"^Returns.encode .*{message}"):
        Returns(codes).fit(torch.ones(3, 2)).encode(torch.ones(3, 2))


def test_methods_of_a_class_beside_the_base_are_checked_too() -> None:
    with pytest.raises(ContractError, match=r"FromMixin.encode gave codes like \[7\]"):
        FromMixin().fit(torch.ones(3, 2)).encode(torch.ones(3, 2))


@pytest.mark.parametrize(
    "decoded",
    [torch.ones(2, 2), torch.ones(3, 2).double(), torch.full((3, 2), torch.inf), [[1.0, 1.0]] * 3],
)
def test_wrong_embeddings_never_leave_decode(decoded: object) -> None:
    tokenizer = Returns(decoded=decoded).fit(torch.ones(3, 2))
    with pytest.raises(ContractError, match=r"return finite float32 of shape \(3, 2\) on the CPU, or leave"):
        tokenizer.decode(ZEROS)


@pytest.mark.parametrize(
    "distances", [torch.ones(3, 4), torch.ones(3, 3).double(), -torch.ones(3, 4).double(), None]
)
def test_wrong_distances_never_leave(distances: object) -> None:
    tokenizer = Returns(distances=distances).fit(torch.ones(3, 2))
    with pytest.raises(ContractError, match=r"return finite float64 >= 0 of shape \(3, 4\) on the CPU"):
        tokenizer.last_level_distances(torch.ones(3, 2))


@pytest.mark.parametrize("sizes", [[4, 4], (), (4.0,), (0,), None])
def test_wrong_codebook_sizes_are_named(sizes: object) -> None:
    tokenizer = Returns(ZEROS).fit(torch.ones(3, 2))
    tokenizer.codebook_sizes = sizes  # type: ignore[assignment]
    with pytest.raises(ContractError, match=r"Returns.codebook_sizes is .* after fit; make it a tuple"):
        tokenizer.encode(torch.ones(3, 2))


class Sorts(Recorder):
    """Moves rows of the embeddings through NumPy, of which torch knows nothing."""

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Recorder:
        embeddings.numpy().sort(axis=0)
        return self


class CentresQueries(Recorder):
    def encode(self, embeddings: Tensor) -> Tensor:
        embeddings.sub_(embeddings.mean(dim=0))
        return super().encode(embeddings)


def test_embeddings_changed_in_place_are_an_error() -> None:
    x = torch.tensor([[3.0, 1.0], [2.0, 5.0]])
    with pytest.raises(ContractError, match=r"Sorts.fit changed the embeddings; work on embeddings.clone"):
        Sorts().fit(x.clone())
    with pytest.raises(ContractError, match=r"CentresQueries.encode changed the embeddings"):
        CentresQueries().fit(x).encode(x.clone())


class WithoutNumbers(Recorder):
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Recorder:
        self.table = torch.tensor([[1.0, float("nan")]])
        return self


def test_nan_that_fit_learned_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match="WithoutNumbers holds NaN in table after fit"):
        WithoutNumbers().fit(torch.ones(3, 2))
    fitted = Recorder().fit(torch.ones(3, 2))
    with pytest.raises(TrainingDivergedError, match="Recorder holds NaN in fitted"):
        fitted.restore({"fitted": torch.tensor(float("nan"))}, fitted.facts())


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(ValueError, match=r"^seed must be a whole number from 0 to 9223372036854775807, not"):
        Recorder().fit(torch.ones(3, 2), seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e16, 1e-16])
def test_embeddings_whose_squares_are_no_float32_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"the largest value is 1e.16\) have squares outside float32; scale"):
        Recorder().fit(torch.eye(3) * scale)
    assert Recorder().fit(torch.zeros(3, 2)).encode(torch.zeros(1, 2)).tolist() == [[0]]
