"""The words of the made-up shop: departments, leaves, features, and names that consist of syllables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from semantic_ids.types import Ints

Words = tuple[str, ...]

ROOT = "Shop"
"""The broadest category."""

DEPARTMENTS: dict[str, tuple[Words, Words]] = {
    "Kitchen": (
        ("Teapot", "Frying Pan", "Chef's Knife", "Coffee Grinder", "Mixing Bowl"),
        ("Enamel", "Cast Iron", "Stoneware", "Dishwasher Safe", "Copper", "Nonstick"),
    ),
    "Garden": (
        ("Watering Can", "Pruning Shears", "Plant Pot", "Garden Hose", "Bird Feeder"),
        ("Weatherproof", "Galvanized", "Terracotta", "Long Reach", "Rustic", "Frost Proof"),
    ),
    "Bath & Body": (
        ("Hand Soap", "Bath Towel", "Body Lotion", "Shampoo", "Bath Salts"),
        ("Lavender", "Fragrance Free", "Gentle", "Olive Oil", "Soothing", "Sea Mineral"),
    ),
    "Office": (
        ("Notebook", "Fountain Pen", "Desk Lamp", "Stapler", "Letter Tray"),
        ("Dotted", "Refillable", "Slim", "Recycled", "Executive", "Adjustable"),
    ),
    "Toys": (
        ("Jigsaw Puzzle", "Building Blocks", "Plush Bear", "Toy Train", "Kite"),
        ("Wooden", "Cuddly", "Rainbow", "Glow in the Dark", "Giant", "First Steps"),
    ),
    "Sports": (
        ("Yoga Mat", "Water Bottle", "Bicycle Bell", "Jump Rope", "Running Belt"),
        ("Lightweight", "Insulated", "Grippy", "Reflective", "Training", "Compact"),
    ),
    "Music": (
        ("Guitar Strings", "Drum Sticks", "Harmonica", "Music Stand", "Tambourine"),
        ("Bright Tone", "Hickory", "Folding", "Stage", "Concert", "Phosphor Bronze"),
    ),
    "Pets": (
        ("Dog Leash", "Cat Tree", "Food Bowl", "Chew Toy", "Pet Bed"),
        ("Chew Proof", "Sisal", "Washable", "Orthopedic", "Slow Feeding", "Padded"),
    ),
}
"""For each department its leaves, and the features that the titles of its items may name."""

LEAVES = [(name, leaf) for name, (leaves, _) in DEPARTMENTS.items() for leaf in leaves]
FEATURES = [feature for _, features in DEPARTMENTS.values() for feature in features]
LEAVES_EACH, FEATURES_EACH = len(LEAVES) // len(DEPARTMENTS), len(FEATURES) // len(DEPARTMENTS)
"""Numbers of leaves and features of a department. Those of department d begin at ``d * LEAVES_EACH``."""

PHRASES = [leaf for _, leaf in LEAVES] + FEATURES
"""Phrases that queries may contain, besides brands: the leaves, then the features."""

SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "va",
    "we",
]

Spelling = Callable[[Ints], pl.Series]
"""Function that returns the texts of numbered names."""


def names(numbers: Ints) -> pl.Series:
    """Return a made-up word for each number, a different one for each different number.

    Args:
        numbers: ``(n,)`` numbers from 0.

    Returns:
        ``(n,)`` words of at least two syllables: the digits of the number in base 17, the lowest first.

    Example:
        >>> names(np.array([0, 1, 17])).to_list()
        ['Baba', 'Ceba', 'Bace']
    """
    base = len(SYLLABLES)
    syllables = pl.Series([*SYLLABLES, ""])
    parts: list[pl.Series] = []
    remaining = numbers
    while not parts or remaining.any() or len(parts) < 2:
        digit = np.where((remaining > 0) | (len(parts) < 2), remaining % base, base)
        parts.append(syllables.gather(digit).alias(str(len(parts))))
        remaining = remaining // base
    return pl.DataFrame(parts).select(pl.concat_str(pl.all()).str.to_titlecase()).to_series()
