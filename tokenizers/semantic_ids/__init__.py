"""Turn item embeddings into semantic IDs: residual GRIT-VQ and the tokenizers it is compared with."""

from importlib.metadata import PackageNotFoundError, version

from semantic_ids.ids import SemanticIds
from semantic_ids.quality import Quality, quality
from semantic_ids.registry import create, recipe, recipes
from semantic_ids.tokenizer import Tokenizer

__all__ = [
    "Quality",
    "SemanticIds",
    "Tokenizer",
    "create",
    "quality",
    "recipe",
    "recipes",
]

try:
    __version__ = version("gritrec")
except PackageNotFoundError:  # run from a folder on the path, without being installed
    __version__ = "unknown"
