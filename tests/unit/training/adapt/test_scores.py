from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speechadapt.adapters.attach import attach
from speechadapt.core.errors import CatalogError
from speechadapt.data.manifest import Utterance
from speechadapt.decoders.base import Hypothesis
from speechadapt.encoders.catalog import load_encoder
from speechadapt.metrics.report import SetScore
from speechadapt.models.adapted import Head, save_adapted
from speechadapt.text.alphabet import english
from speechadapt.training.adapt.scores import (
    compare,
    comparison_table,
    load_reader,
    read_texts,
    score_texts,
    scored_on,
    write_adapter,
)
from tests.own_data import row, tone, write

TEXTS = ["one two three", "four five six", "one two", "seven eight"] * 5


def scored(texts: Sequence[str], lang: str | None = None) -> SetScore:
    rows = [
        Utterance(f"{n}.wav", 1.0, text=text, lang=lang, speaker=f"voice {n % 5}", id=str(n))
        for n, text in enumerate(TEXTS)
    ]
    return score_texts("held out", rows, texts)


GOOD = scored(TEXTS)
POOR = scored(["one"] * len(TEXTS))


@pytest.mark.parametrize(
    ("before", "after", "verdict", "said"),
    [
        (POOR, GOOD, "helped", "Adapting helped: WER 80.0 % before, 0.0 % after, -80.0 points"),
        (GOOD, POOR, "worse", "Adapting did not help, it did harm: WER 0.0 % before"),
        (POOR, POOR, "unclear", "Adapting did not help as far as these 20 recordings can tell"),
        (None, POOR, "alone", "The base writes no text of its own"),
    ],
)
def test_it_is_said_plainly_whether_adapting_helped(
    before: SetScore | None, after: SetScore, verdict: str, said: str
) -> None:
    found = compare(before, after)
    assert found.verdict == verdict
    assert found.sentence().startswith(said)
    stored = json.loads(json.dumps(found.to_json()))
    assert stored["verdict"] == verdict
    assert (stored["before"] is None) == (before is None)


def test_languages_without_spaces_are_judged_by_letters() -> None:
    found = compare(scored(["x"] * len(TEXTS), "zh"), scored(TEXTS, "zh"))
    assert found.rate == "cer"
    assert "CER" in found.sentence()


def test_the_table_has_both_rates_before_and_after() -> None:
    table = comparison_table(compare(POOR, GOOD))
    assert table[0] == ["", "before", "after"]
    assert [line[0] for line in table] == ["", "WER %", "CER %"]
    assert table[1][2] == "0.0 [0.0, 0.0]"
    assert comparison_table(compare(None, GOOD))[1][1] == "-"
    assert "20 held-out recordings, 50 words; 95% bootstrap over 5 speakers" in scored_on(
        compare(POOR, GOOD)
    )


class Loud:
    """A reader that writes how many samples it was given."""

    sample_rate = 8000

    def decode_batch(self, signals: Sequence[np.ndarray]) -> list[Hypothesis]:
        self.batches = [*getattr(self, "batches", []), len(signals)]
        return [Hypothesis(str(len(signal))) for signal in signals]


def test_texts_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    lengths = [0.5, 2.0, 1.0]
    rows = [
        Utterance(write(tmp_path / f"{s}.wav", tone(s)), s, text="x", id=str(s)) for s in lengths
    ]
    told: list[tuple[int, int]] = []
    texts = read_texts(Loud(), rows, lambda *done: told.append(done), 2)
    assert texts == ["4000", "16000", "8000"]
    assert told == [(2, 3), (3, 3)]


def test_a_base_without_a_decoder_writes_nothing(tiny_folder: Callable[[str], Path]) -> None:
    with pytest.raises(CatalogError, match="no decoder reads the architecture"):
        load_reader(str(tiny_folder("ast")))


def test_the_adapter_to_keep_has_scores_limits_and_a_card(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    base = tiny_folder("w2v_bert")
    encoder = load_encoder(base)
    handle = attach(encoder, "lora", config={"rank": 1})
    torch.manual_seed(0)
    head = nn.Linear(encoder.dim, 29)
    save_adapted(
        tmp_path / "best", encoder, handle, head, Head(english()),
        training={"steps": 7}, scores={"mine": {"wer": 0.5}},
    )  # fmt: skip
    kept = tmp_path / "german"
    write_adapter(tmp_path / "best", kept, compare(POOR, GOOD), {"data": "20 rows"}, ["one voice"])
    card = (kept / "README.md").read_text()
    for part in ("# german\n", "Adapting helped", "| WER % |", "- data: 20 rows", "- one voice"):
        assert part in card
    assert card.startswith("---\nlibrary_name")
    assert "--model BASE --adapter german" in card
    details = json.loads((kept / "adapter_config.json").read_text())
    assert details["training"] == {"steps": 7, "data": "20 rows"}
    assert details["scores"]["held out"]["verdict"] == "helped"
    assert details["scores"]["chosen by"] == {"mine": {"wer": 0.5}}
    reader = load_reader(str(base), kept)
    assert len(read_texts(reader, [row(write(tmp_path / "a.wav", tone()))])) == 1


def test_a_head_alone_has_a_card_too(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    head = nn.Linear(encoder.dim, 29)
    save_adapted(tmp_path / "best", encoder, None, head, Head(english()), training={}, scores={})
    write_adapter(tmp_path / "best", tmp_path / "kept", compare(None, GOOD), {}, [])
    card = (tmp_path / "kept/README.md").read_text()
    assert card.startswith("# kept\n\nA CTC head of 29 symbols")
    assert "## Limits" not in card
