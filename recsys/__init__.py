"""Data, item texts, retrievers and evaluation for recommendation with semantic IDs."""


def __getattr__(name: str) -> str:
    """Return ``__version__``, which semantic_ids holds; it is imported late because it loads torch."""
    if name == "__version__":
        from semantic_ids import __version__  # noqa: PLC0415

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
