"""Names that stand for nothing."""

NO_TOKENIZER = NO_RETRIEVER = "–"
"""Takes the place of a name in tables: for a baseline that uses no tokenizer, or where tokenizers alone are
compared. No method may be called so."""
