from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.datasets.cards import all_cards, find_card, read_card

READERS = {
    "amazon": {"reviews", "meta"},
    "esci": {"examples", "products"},
    "jdsearch": {"behavior", "products"},
    "movielens": {"ratings", "movies"},
    "sequences": {"sequences"},
}

SOUND: dict[str, Any] = {
    "name": "toys",
    "title": "Toys",
    "reader": "amazon",
    "source": "https://owner.example/toys",
    "licence": "Research use.",
    "citation": "A. Toymaker. Toys. 2020.",
    "folder": "data/raw/toys",
    "reads": {"reviews": "reviews_{category}.gz"},
    "files": [{"name": "reviews_{category}.gz", "urls": ["https://owner.example/{category}.gz"]}],
    "categories": ["Dolls", "Board_Games"],
    "published": {"reviews_Dolls.gz": {"size": 12}},
    "counts": {"Dolls": {"users": 3}},
}

OUTSIDE = [
    "/root/.ssh",
    "data/raw/../../x",
    "~/data",
    ".ssh",
    "data/raw",
    "data",
    "data/raw/a\x1b",
    "../data/raw/a",
]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def card(**changes: Any) -> Path:
        path = tmp_path / "toys.yaml"
        path.write_text(yaml.safe_dump(SOUND | changes))
        return path

    return card


def test_the_projects_own_cards_are_sound() -> None:
    cards = all_cards()
    assert {card.name for card in cards} == {
        "amazon2014",
        "amazon2018",
        "amazon2023",
        "esci",
        "jdsearch",
        "movielens-100k",
        "movielens-1m",
        "movielens-25m",
        "movielens-latest-small",
        "s3rec",
    }
    for card in cards:
        assert set(card.reads) == READERS[card.reader], card.name
        assert card.folder.parts[:2] == ("data", "raw"), "the folder that git ignores"
        for category in card.categories or (None,):
            chosen = card.choose(category)
            everything = [*chosen.reads.values(), chosen.help, *(url for f in chosen.files for url in f.urls)]
            assert "{category}" not in " ".join(everything), card.name


def test_one_category_has_its_name_filled_in(write: Write) -> None:
    dolls = read_card(write()).choose("Dolls")
    assert dolls.reads == {"reviews": "reviews_Dolls.gz"}
    assert dolls.files[0].name == "reviews_Dolls.gz"
    assert dolls.files[0].urls == ("https://owner.example/Dolls.gz",)
    assert dolls.counts == {"all": {"users": 3}}
    assert dolls.size() == 12
    assert read_card(write()).choose("Board_Games").size() is None


def test_what_is_missing_is_told(write: Write, tmp_path: Path) -> None:
    dolls = read_card(write()).choose("Dolls")
    assert dolls.missing(tmp_path) == ["reviews_Dolls.gz"]
    (tmp_path / "reviews_Dolls.gz").touch()
    assert dolls.missing(tmp_path) == []


@pytest.mark.parametrize(
    ("category", "message"),
    [
        (None, "toys: choose a category, one of Dolls, Board_Games"),
        ("Dols", "toys has no category 'Dols'. Did you mean 'Dolls'?"),
        ("../Dolls", "toys has no category"),
    ],
)
def test_a_category_must_be_one_of_the_card(write: Write, category: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        read_card(write()).choose(category)


def test_a_card_without_categories_takes_none(write: Write) -> None:
    plain = {"categories": [], "counts": {}, "published": {}, "reads": {"reviews": "a.gz"}}
    card = read_card(write(**plain, files=[{"name": "a.gz", "urls": ["https://owner.example/a.gz"]}]))
    assert card.choose(None) is card
    with pytest.raises(ValueError, match="toys has no categories"):
        card.choose("Dolls")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licens": "MIT"}, "licens: Extra inputs"),
        ({"licence": " "}, "licence: String should have at least 1 character"),
        ({"source": "owner.example"}, "source: String should match"),
        ({"name": "games"}, "name is 'games'; it must be the name of the file, 'toys'"),
        *(({"folder": folder}, "must be a folder in data/raw") for folder in OUTSIDE),
        ({"reads": {"reviews": "a\x1b{category}.gz"}}, "must be a path inside the folder"),
        ({"files": [SOUND["files"][0]] * 2}, "files: 'reviews_{category}.gz' is the name of another file"),
        (
            {"files": [{"name": "{category}.part", "urls": ["https://a.example"]}]},
            "'{category}.part' is the name",
        ),
        (
            {"published": {"reviews_Dols.gz": {"size": 12}}},
            "published.reviews_Dols.gz: this is none of the files",
        ),
        ({"published": {"a": {"sha256": "abc"}}}, "published.a.sha256: String should match"),
        ({"counts": {"Trains": {"users": 1}}}, "counts.Trains: no such category"),
        ({"reads": {"reviews": "{category}.txt"}}, "'{category}.txt' is none of the files"),
        ({"reads": {"reviews": "../{category}.gz"}}, "must be a path inside the folder"),
        ({"reads": {"reviews": "/{category}.gz"}}, "must be a path inside the folder"),
        ({"categories": [], "counts": {}}, "must not name {category}: there are no categories"),
        ({"files": [{"name": "../{category}.gz", "urls": ["https://a.example"]}]}, "files.0.name"),
        ({"files": [{"name": "a.zip", "urls": ["https://a.example"]}]}, "'a.zip' must name {category}"),
        ({"files": [{"name": "reviews_{category}.gz", "urls": []}]}, "files.0.urls"),
        ({"files": [{"name": "reviews_{category}.gz", "urls": ["ftp://a.example"]}]}, "files.0.urls.0"),
        ({"files": []}, "none of the files"),
        ({"log_in": "Ask them."}, "give files to download, or say under log_in"),
    ],
)
def test_a_broken_card_is_refused_by_file_and_field(
    write: Write, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"toys\.yaml") as error:
        read_card(write(**changes))
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "{}"])
def test_what_is_no_card_at_all_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "toys.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"toys\.yaml is (no|empty)"):
        read_card(path)


def test_a_key_that_is_given_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "toys.yaml"
    path.write_text("name: toys\nfolder: data/raw/toys\nname: toys\n")
    with pytest.raises(ValueError, match=r"toys\.yaml: the key 'name' is given twice, in lines 1 and 3"):
        read_card(path)


def test_a_card_is_found_by_name_or_file(write: Write, tmp_path: Path) -> None:
    assert find_card("esci").title.startswith("Amazon Shopping Queries")
    assert find_card(str(write())).title == "Toys"
    with pytest.raises(ValueError, match=r"no corpus 'amazon-2014'\. Did you mean 'amazon2014'\?"):
        find_card("amazon-2014")
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        find_card(str(tmp_path / "none.yaml"))
