from __future__ import annotations

import pytest
import torch

from speechadapt.decoders.masked_diffusion.tiny import tiny_vocabulary
from speechadapt.training.diffusion.config import MaskingConfig
from speechadapt.training.diffusion.rows import TokenRows

VOCABULARY = tiny_vocabulary()
TEXTS = ["on", "", "turn it off", "x" * 40]


def rows(positions: int = 20, **masking: object) -> TokenRows:
    return TokenRows(VOCABULARY, positions, MaskingConfig(**masking))


def test_rows_are_start_text_and_pads_up_to_their_own_size() -> None:
    batch = rows(slack=3)(TEXTS, 0)
    for row, text in enumerate(TEXTS[:3]):
        tokens = batch["tokens"][row].tolist()
        assert VOCABULARY.text(VOCABULARY.until_end(tokens)) == text
        assert tokens[0] == VOCABULARY.start_id
        count = len(VOCABULARY.encode(text))
        assert batch["counts"][row] == count
        assert count + 2 <= batch["valid"][row] <= count + 5
    assert batch["tokens"].shape == (4, int(batch["valid"].max()))


def test_a_text_longer_than_the_positions_is_cut_and_counted() -> None:
    batch = rows()(TEXTS, 0)
    assert batch["cut"].tolist() == [False, False, False, True]
    assert batch["valid"][3] == 20
    assert batch["counts"][3] == 19
    assert VOCABULARY.pad_id not in batch["tokens"][3].tolist()


def test_the_start_and_what_lies_past_a_row_are_never_hidden() -> None:
    batch = rows(ratio=(1.0, 1.0))(TEXTS, 0)
    for row, valid in enumerate(batch["valid"].tolist()):
        expected = [0 < place < valid for place in range(batch["tokens"].shape[1])]
        assert batch["hidden"][row].tolist() == [expected]


def test_without_slack_every_position_is_filled() -> None:
    batch = rows(slack=0)(TEXTS, 0)
    assert batch["valid"].tolist() == [20] * 4


def test_ratios_keep_to_their_range_and_all_follows_from_the_seed() -> None:
    made = rows(ratio=(0.7, 1.0))
    first, again, other = made(TEXTS, 3, 1), made(TEXTS, 3, 1), made(TEXTS, 3, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["ratios"], other["ratios"])
    assert 0.7 <= float(first["ratios"].min()) <= float(first["ratios"].max()) <= 1.0
    strata = ((first["ratios"] - 0.7) / 0.075).long().flatten()
    assert sorted(strata.tolist()) == [0, 1, 2, 3]


def test_a_row_is_hidden_in_as_many_ways_as_are_drawn() -> None:
    batch = rows(draws=3, ratio=(0.4, 0.6))(TEXTS, 0)
    assert batch["hidden"].shape == (4, 3, batch["tokens"].shape[1])
    assert batch["ratios"].shape == (4, 3)
    first, second, third = batch["hidden"][3]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    past = torch.arange(batch["tokens"].shape[1])[None, :] >= batch["valid"][:, None]
    assert not (batch["hidden"] & past[:, None]).any()


@pytest.mark.parametrize("texts", [[""], ["a"]])
def test_one_row_is_a_batch(texts: list[str]) -> None:
    assert rows()(texts, 0)["tokens"].shape[0] == 1
