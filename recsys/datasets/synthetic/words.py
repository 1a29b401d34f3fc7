"""The words of the made-up shop: departments, what they sell, and names made of syllables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from semantic_ids.types import Ints

Words = tuple[str, ...]

ROOT = "Shop"
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
"""Name → its leaves, and the features that one may find in the titles of its items."""

LEAVES = [(name, leaf) for name, (leaves, _) in DEPARTMENTS.items() for leaf in leaves]
FEATURES = [feature for _, features in DEPARTMENTS.values() for feature in features]
LEAVES_EACH, FEATURES_EACH = len(LEAVES) // len(DEPARTMENTS), len(FEATURES) // len(DEPARTMENTS)
"""How many leaves and features a department has: of department ``d`` those from ``d * LEAVES_EACH`` on."""
PHRASES = [leaf for _, leaf in LEAVES] + FEATURES
"""What queries may name, besides brands."""

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
"""Numbers of names → texts."""


def names(numbers: Ints) -> pl.Series:
    """``(n,)`` numbers → ``(n,)`` made-up words, a different one for each number."""
    base = len(SYLLABLES)
    syllables = pl.Series([*SYLLABLES, ""])
    parts: list[pl.Series] = []
    left = numbers
    while not parts or left.any() or len(parts) < 2:
        digit = np.where((left > 0) | (len(parts) < 2), left % base, base)
        parts.append(syllables.gather(digit).alias(str(len(parts))))
        left = left // base
    return pl.DataFrame(parts).select(pl.concat_str(pl.all()).str.to_titlecase()).to_series()
