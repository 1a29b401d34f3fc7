"""Check that a tokenizer keeps the contract of :class:`~semantic_ids.tokenizer.Tokenizer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from semantic_ids.checks import check_codebook_sizes, check_returned_codes, check_returned_numbers
from semantic_ids.contract import (
    Skip,
    draw_random_state,
    expect,
    expect_arguments_kept,
    expect_reports,
    run_checks,
    run_in_fresh_process,
    set_random_state,
)
from semantic_ids.tokenizer import Tokenizer

Make = Callable[[], Tokenizer]
"""Returns a new, unfitted tokenizer: a class whose arguments all have defaults, or a function."""


def check_tokenizer(make: Make) -> dict[str, str]:
    """Check everything that the benchmark relies on, with small made-up embeddings.

    Call it in the tests of your own tokenizer.

    Args:
        make: ``MyTokenizer``, or a function with arguments that make it quick, such as
            ``partial(MyTokenizer, steps=40)`` or ``partial(create, "rq-vae", steps=40)``.

    Returns:
        Name of each check in :data:`CHECKS` to ``passed``, or to ``skipped: `` and the reason.

    Raises:
        AssertionError: If a check failed. The message names every check that did, and what to do.
        TypeError: If ``make`` returns no tokenizer.

    Example:
        >>> from functools import partial
        >>> from semantic_ids import create
        >>> check_tokenizer(partial(create, "lsh"))["encode_needs_fit"]
        'passed'
    """
    if not isinstance(make(), Tokenizer):
        raise TypeError(f"{make!r} does not give a semantic_ids.Tokenizer")
    return run_checks(CHECKS, make)


def fit_returns_the_tokenizer(make: Make) -> None:
    """Check that ``fit`` returns self, so that ``MyTokenizer().fit(x).encode(x)`` works."""
    tokenizer = make()
    expect(tokenizer.fit(_embeddings()) is tokenizer, "end fit with: return self")


def codebook_sizes_are_positive_ints(make: Make) -> None:
    """Check ``codebook_sizes``; retrievers size their vocabularies by it."""
    tokenizer = _fitted(make)
    check_codebook_sizes(type(tokenizer).__name__, tokenizer.codebook_sizes)


def codes_keep_to_the_codebooks(make: Make) -> None:
    """Check that codes are ``(N, L)`` int64 within ``codebook_sizes``, also for unseen items and for none."""
    tokenizer = _fitted(make)
    for x in (_embeddings(), 10 * _embeddings(seed=1), _embeddings()[:0]):
        check_returned_codes(
            f"{type(tokenizer).__name__}.encode", tokenizer.encode(x), tokenizer.codebook_sizes, len(x)
        )


def codes_depend_on_the_row_alone(make: Make) -> None:
    """Check that an item gets the same codes again, in another order, and in a batch of its own."""
    tokenizer, x = _fitted(make), _embeddings()
    codes = tokenizer.encode(x)
    codes_again = {
        "the second time": tokenizer.encode(x),
        "in another order": tokenizer.encode(x.flip(0)).flip(0),
        "when asked alone": torch.cat([tokenizer.encode(row) for row in x.split(1)]),
    }
    for when, again in codes_again.items():
        expect(torch.equal(again, codes), f"encode gave an item other codes {when}; {_ALONE}")


def equal_rows_get_equal_codes(make: Make) -> None:
    """Check that equal items get equal codes, also when all items are equal or there is only one."""
    x = _embeddings()
    for rows in (torch.cat([x, x]), x[:1].repeat(20, 1), x[:1]):
        codes = _fitted(make, rows).encode(rows)
        same = len(torch.cat([rows, codes], dim=1).unique(dim=0)) == len(rows.unique(dim=0))
        expect(same, f"encode gave equal rows different codes; {_ALONE}")


def bad_embeddings_are_refused(make: Make) -> None:
    """Check that NaN, wrong shapes, no rows and another width than was fitted raise a ``ValueError``."""
    fitted, nan, infinite = _fitted(make), _embeddings(), _embeddings()
    nan[3, 2], infinite[3, 2] = math.nan, math.inf
    _expect_refusal(make().fit, _embeddings()[:0], "fit took no rows")
    _expect_refusal(fitted.encode, _embeddings(width=24), "encode took another width than was fitted")
    for x, what in ((nan, "NaN"), (infinite, "an infinite value"), (_embeddings()[0], "one dimension")):
        _expect_refusal(make().fit, x, f"fit took embeddings with {what}")
        _expect_refusal(fitted.encode, x, f"encode took embeddings with {what}")


def encode_needs_fit(make: Make) -> None:
    """Check that ``encode`` before ``fit`` raises a ``ValueError``."""
    _expect_refusal(make().encode, _embeddings(), "encode answered before fit")


def the_seed_alone_decides(make: Make) -> None:
    """Check that two fits with one seed agree, whatever the global random state."""
    codes = []
    for state in (1, 2):
        set_random_state(state)
        codes.append(_fitted(make).encode(_embeddings()))
    expect(torch.equal(*codes), f"two fits with one seed gave different codes; {_DRAW}")


def the_global_random_state_is_left_alone(make: Make) -> None:
    """Check that fitting changes no global random state, so that the order of a benchmark's steps is free."""
    set_random_state(1)
    expected = draw_random_state()
    set_random_state(1)
    _fitted(make).encode(_embeddings())
    same = draw_random_state() == expected
    expect(same, f"fit or encode changed the global random state; {_DRAW}")


def the_embeddings_are_left_alone(make: Make) -> None:
    """Check that the embeddings are not changed, because all tokenizers of a benchmark share them."""
    x = _embeddings()
    _fitted(make, x).encode(x)
    expect(torch.equal(x, _embeddings()), "fit or encode changed the embeddings; work on embeddings.clone()")


def fitting_again_forgets(make: Make) -> None:
    """Check that a second fit, on data of another width, equals a first one."""
    x, tokenizer = _embeddings(width=24), _fitted(make)
    tokenizer.fit(x, seed=3)
    same = torch.equal(tokenizer.encode(x), _fitted(make, x).encode(x))
    expect(same, "a second fit gave other codes than a first one would; set all that is learned anew")


def arguments_are_kept(make: Make) -> None:
    """Check that ``params()`` returns JSON values that construct the same tokenizer again."""
    expect_arguments_kept(make)


def a_loaded_tokenizer_is_the_same(make: Make) -> None:
    """Check that a loaded tokenizer gives the same codes, and the same files when it is saved again."""
    tokenizer = _fitted(make)
    with TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        tokenizer.save(first)
        loaded = type(tokenizer).load(first)
        loaded.save(second)
        files = [{path.name: path.read_bytes() for path in saved.iterdir()} for saved in (first, second)]
    same = torch.equal(loaded.encode(_embeddings()), tokenizer.encode(_embeddings()))
    same = same and loaded.codebook_sizes == tokenizer.codebook_sizes
    expect(same, f"a loaded tokenizer gave other codes; {_KEEP}")
    expect(files[0] == files[1], f"a loaded tokenizer saved other files than its own; {_KEEP}")


def a_fresh_process_can_load_it(make: Make) -> None:
    """Check that another process can load the saved tokenizer and gets the same codes."""
    tokenizer = _fitted(make)
    with TemporaryDirectory() as folder:
        tokenizer.save(folder)
        (codes,) = _codes_of_a_fresh_process([folder])
    same = codes == tokenizer.encode(_embeddings()).tolist()
    expect(same, f"a fresh process that loaded it gave other codes; {_KEEP}")


def decode_gives_embeddings(make: Make) -> None:
    """Check that ``decode``, if there is one, gives ``(N, D)`` finite float32."""
    tokenizer = _fitted(make)
    for x in (_embeddings(), _embeddings()[:0]):
        try:
            decoded = tokenizer.decode(tokenizer.encode(x))
        except NotImplementedError as reason:
            raise Skip(reason) from reason
        method = f"{type(tokenizer).__name__}.decode"
        check_returned_numbers(method, decoded, torch.float32, (len(x), x.shape[1]))


def last_level_distances_depend_on_the_row_alone(make: Make) -> None:
    """Check that ``last_level_distances``, if there is one, gives ``(N, K_L)`` finite float64 ≥ 0."""
    # The nearest codeword need not be the last code: an assignment may follow another rule, such as angles.
    tokenizer, x = _fitted(make), _embeddings()
    measure, size = tokenizer.last_level_distances, tokenizer.codebook_sizes[-1]
    for rows in (x, x[:0]):
        try:
            distances = measure(rows)
        except NotImplementedError as reason:
            raise Skip(reason) from reason
        method = f"{type(tokenizer).__name__}.last_level_distances"
        check_returned_numbers(method, distances, torch.float64, (len(rows), size), at_least=0)
    alone = torch.cat([measure(row) for row in x.flip(0).split(1)]).flip(0)
    expect(torch.equal(alone, measure(x)), f"last_level_distances gave an item others alone; {_ALONE}")


def on_step_gets_a_step_and_its_metrics(make: Make) -> None:
    """Check that ``on_step`` gets an int and a mapping of finite numbers, with names that MLflow takes."""
    calls: list[tuple[int, Mapping[str, float]]] = []
    make().fit(_embeddings(), on_step=lambda step, metrics: calls.append((step, metrics)))
    expect_reports(calls, "fit")
    if not calls:
        raise Skip("fit did not call on_step, here at least")


def a_training_that_diverges_stops(make: Make) -> None:
    """Check that ``fit`` raises a ``ValueError`` at a hopeless learning rate, or learns finite numbers.

    It applies to tokenizers with an argument ``learning_rate``.
    """
    tokenizer = make()
    params = tokenizer.params()
    if "learning_rate" not in params:
        raise Skip("there is no argument learning_rate")
    try:
        tokenizer = type(tokenizer)(**{**params, "learning_rate": 1e9})
        tokenizer.fit(_embeddings(), seed=3)
    except ValueError:
        return
    bad = [name for name, value in tokenizer.state().items() if not value.isfinite().all()]
    expect(
        not bad,
        f"with learning_rate=1e9 fit learned NaN or infinite values in {bad}; raise "
        "semantic_ids.errors.TrainingDivergedError where the loss is not finite",
    )


def embeddings_may_be_on_the_gpu(make: Make) -> None:
    """Check that embeddings on the GPU, if there is one, get the same codes."""
    if not torch.cuda.is_available():
        raise Skip("there is no GPU that CUDA can use")
    x = _embeddings()
    same = torch.equal(_fitted(make, x.cuda()).encode(x.cuda()), _fitted(make, x).encode(x))
    expect(same, "embeddings on the GPU got other codes; work on the CPU, or always on one device")


CHECKS: tuple[Callable[[Make], None], ...] = (
    fit_returns_the_tokenizer,
    codebook_sizes_are_positive_ints,
    codes_keep_to_the_codebooks,
    codes_depend_on_the_row_alone,
    equal_rows_get_equal_codes,
    bad_embeddings_are_refused,
    encode_needs_fit,
    the_seed_alone_decides,
    the_global_random_state_is_left_alone,
    the_embeddings_are_left_alone,
    fitting_again_forgets,
    arguments_are_kept,
    a_loaded_tokenizer_is_the_same,
    a_fresh_process_can_load_it,
    decode_gives_embeddings,
    last_level_distances_depend_on_the_row_alone,
    on_step_gets_a_step_and_its_metrics,
    a_training_that_diverges_stops,
    embeddings_may_be_on_the_gpu,
)

_ALONE = (
    "let its row alone decide: networks in eval mode, products inside semantic_ids.nearest.in_equal_batches"
)
_DRAW = "draw from torch.Generator().manual_seed(seed), or fit in: with semantic_ids.randomness.seeded(seed)"
_LOAD = """import sys; from semantic_ids import Tokenizer, contract, testing
for folder in sys.argv[1:]: contract.import_class_of(folder)
print([Tokenizer.load(folder).encode(testing._embeddings()).tolist() for folder in sys.argv[1:]])"""
_KEEP = "keep all that encode uses in attributes of self, without _ before their names"


def _embeddings(width: int = 16, seed: int = 0) -> Tensor:
    """Return random embeddings of 60 items, ``(60, width)``."""
    return torch.randn(60, width, generator=torch.Generator().manual_seed(seed))


def _fitted(make: Make, x: Tensor | None = None) -> Tokenizer:
    """Return a tokenizer fitted to ``x`` ``(N, D)``, by default to random embeddings."""
    tokenizer = make()
    tokenizer.fit(_embeddings() if x is None else x, seed=3)
    return tokenizer


def _codes_of_a_fresh_process(folders: Sequence[str]) -> list[list[list[int]]]:
    """Return the codes ``(60, L)`` that a new process gets from the tokenizer saved in each folder."""
    codes: list[list[list[int]]] = run_in_fresh_process(_LOAD, *folders)
    return codes


def _expect_refusal(call: Callable[[Tensor], object], x: Tensor, otherwise: str) -> None:
    """Raise an AssertionError that begins with ``otherwise`` unless ``call(x)`` raises a ValueError."""
    try:
        call(x)
    except ValueError:
        return
    raise AssertionError(f"{otherwise}; derive the class that defines it from Tokenizer, which checks")
