from __future__ import annotations

import numpy as np

from speechadapt.data.manifest import Utterance
from speechadapt.data.recombine import Recombiner


def row(name: str, text: str, **slots: str) -> Utterance:
    return Utterance("x", text=text, id=name, extra={"slots": slots} if slots else {})


ROWS = [
    row(
        "1",
        "get me a medium medium roast mocha with milk",
        size="medium",
        roast="medium roast",
        drink="mocha",
        milk="milk",
    ),
    row("2", "brew an eight ounce latte", size="eight ounce", drink="latte"),
    row("3", "i want a small dark roast latte", size="small", roast="dark roast", drink="latte"),
    row("4", "stop"),
    row("5", "i want a tea", drink="coffee"),
]


def drawn(item: Utterance, count: int = 200) -> set[str]:
    made = Recombiner(ROWS)
    random = np.random.default_rng(0)
    return {made.draw(item, random) for _ in range(count)}


def test_every_value_of_a_slot_takes_every_place_of_it() -> None:
    assert drawn(ROWS[1]) == {
        f"brew {size} {drink}"
        for size in ("an eight ounce", "a medium", "a small")
        for drink in ("latte", "mocha")
    }


def test_a_word_that_two_slots_share_is_told_apart() -> None:
    found = drawn(ROWS[0])
    assert len(found) == 3 * 2 * 2
    assert "get me a small dark roast latte with milk" in found
    assert "get me an eight ounce medium roast mocha with milk" in found


def test_a_text_without_slots_or_with_others_stays_as_it_is() -> None:
    assert drawn(ROWS[3]) == {"stop"}
    assert drawn(ROWS[4]) == {"i want a tea"}
    assert len(Recombiner(ROWS)) == 3


def test_values_of_a_row_that_was_passed_over_are_not_used() -> None:
    assert not any("coffee" in text for item in ROWS for text in drawn(item))


def test_the_same_random_stream_draws_the_same() -> None:
    made = Recombiner(ROWS)
    one, other = (made.draw(ROWS[0], np.random.default_rng(7)) for _ in range(2))
    assert one == other


def test_a_value_is_not_found_across_the_border_of_another() -> None:
    rows = [
        row("1", "big red box and red box", first="big red", second="red box"),
        row("2", "tin", second="tin"),
    ]
    made, random = Recombiner(rows), np.random.default_rng(0)
    found = {made.draw(rows[0], random) for _ in range(50)}
    assert found == {"big red box and red box", "big red box and tin"}
