"""Split texts into words, for BM25, the neighbours by texts, and latent semantic analysis alike."""

from __future__ import annotations

import operator
import re
import unicodedata
from functools import lru_cache

import regex

_ASCII_WORD = re.compile(r"\w+", flags=re.ASCII)

_EAST_ASIAN_RUN = re.compile(
    "(["
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9"  # Han
    "\U00020000-\U000323af"
    "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana
    "\U0001aff0-\U0001b16f"
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"  # Hangul
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "]+)"
)
"""A run of characters of Chinese, Japanese and Korean words, by ranges because these are fast."""

_OTHER_WORD = regex.compile(r"(?V1)([\p{Line_Break=SA}&&\w]+)|[\w--\p{Line_Break=SA}]+")
r"""A run of Thai, Lao, Khmer, Myanmar and the like, or a word of other scripts; ``\w`` contains marks here.

``SA`` are the scripts whose lines break where a dictionary finds words.
"""

_SYLLABLE = regex.compile(r"\P{M}\p{M}*|\p{M}+")
"""A character with the marks on it."""

_APART = re.compile("[™℠\u200b¼½¾⅐-⅞]")
"""Signs that NFKC would join to the word before them: ``5½`` would become ``51⁄2``."""

_IGNORED = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f"  # accents
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"  # vowel points
    "\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"  # invisible
    "\U000e0100-\U000e01ef]"
)
"""Accents, vowel points of Hebrew and Arabic, and invisible characters, in a decomposed text.

Other marks are parts of letters and stay, such as the vowel signs of India and the voicing marks of kana.
"""


def words(text: str) -> list[str]:
    """Return the words of a text in their order, also for languages that set no blanks between words.

    - A word is a run of letters, digits, underscores and the marks on them.
    - A run of Chinese, Japanese, Korean, Thai, Lao, Khmer or Myanmar characters gives all its pairs of
      neighbouring characters. A run of one character gives this character.
    - A word that mixes such characters with others is split between them.
    - Upper and lower case are equal, and so are letters with and without accents, full-width and half-width
      characters, and other forms that Unicode calls compatible, such as ``㎏`` and ``kg``.

    Args:
        text: Any text.

    Example:
        >>> words("Crème BRÛLÉE, 4 pcs")
        ['creme', 'brulee', '4', 'pcs']
        >>> words("ｉPhone15ケース 水")
        ['iphone15', 'ケー', 'ース', '水']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = []
    for part in text.split():
        found += _ASCII_WORD.findall(part.lower()) if part.isascii() else _words_of_part(part)
    return found


@lru_cache(maxsize=2**14)
def _words_of_part(part: str) -> list[str]:
    """Return the words of a text without blanks, which is not ASCII."""
    found: list[str] = []
    for index, piece in enumerate(_EAST_ASIAN_RUN.split(_normalized(part))):
        if index % 2:
            found += _pairs(piece)
        elif piece.isascii():
            found += _ASCII_WORD.findall(piece)
        else:
            for match in _OTHER_WORD.finditer(piece):
                found += _pairs(_SYLLABLE.findall(match[1])) if match[1] else [match[0]]
    return found


def _pairs(characters: str | list[str]) -> list[str]:
    """Return all pairs of neighbours joined, or the only character."""
    return list(map(operator.add, characters, characters[1:])) or [characters[0]]


def _normalized(text: str) -> str:
    """Return a text whose equal words have equal characters."""
    apart = _APART.sub(lambda sign: f" {sign[0]} " if sign[0].isnumeric() else " ", text)
    compatible = unicodedata.normalize("NFKC", apart).casefold()
    decomposed = unicodedata.normalize("NFD", compatible)
    plain = _IGNORED.sub("", decomposed)
    return compatible if plain == decomposed else unicodedata.normalize("NFC", plain)
