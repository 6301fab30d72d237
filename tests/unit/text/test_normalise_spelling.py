from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.text.normalise_spelling import own_spellings, own_spellings_label, read_spellings


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("colour", "color"),
        ("colourised", "colorized"),
        ("favourite", "favorite"),
        ("neighbourhood", "neighborhood"),
        ("organisation", "organization"),
        ("realising", "realizing"),
        ("analysed", "analyzed"),
        ("centre", "center"),
        ("kilometres", "kilometers"),
        ("travelled", "traveled"),
        ("cancelling", "canceling"),
        ("counsellor", "counselor"),
        ("fulfil", "fulfill"),
        ("skilful", "skillful"),
        ("anaemia", "anemia"),
        ("diarrhoea", "diarrhea"),
        ("catalogued", "cataloged"),
        ("defence", "defense"),
        ("licence", "license"),
        ("manoeuvred", "maneuvered"),
        ("grey", "gray"),
        ("programme", "program"),
        ("plough", "plow"),
        ("sceptical", "skeptical"),
        ("tyre", "tire"),
    ],
)
def test_a_british_form_maps_to_the_american_one(british: str, american: str) -> None:
    assert own_spellings()[british] == american


def test_no_american_form_is_mapped_further() -> None:
    spellings = own_spellings()
    assert not set(spellings.values()) & set(spellings)


@pytest.mark.parametrize(
    "word",
    "promise exercise advise surprise wise hour four your tour pour called filled selling "
    "propelled rebelled here there were more genre acre does shoe vice tonne science hence "
    "vogue league".split(),
)
def test_a_word_both_write_alike_stays(word: str) -> None:
    assert word not in own_spellings()


def test_the_label_counts_the_forms() -> None:
    assert own_spellings_label() == f"speechadapt 1, {len(own_spellings())} forms"


def test_a_map_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('["colour"]')
    with pytest.raises(ConfigError, match="must be a JSON object"):
        read_spellings(path)


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json.* cannot be read"):
        read_spellings(tmp_path / "none.json")
