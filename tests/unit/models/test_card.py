"""Model cards: written, read back, checked and rendered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechadapt.core.errors import CatalogError, CheckpointError
from speechadapt.models.card import (
    Corpus,
    ModelCard,
    Score,
    bundled_models,
    find_bundled,
    format_score,
    read_card,
    render_card,
    scores_from_report,
    training_ids,
    write_card,
)


def make_card() -> ModelCard:
    """Make a card that fills every field."""
    return ModelCard(
        name="tiny",
        summary="A made-up model.",
        encoder="w2v_bert",
        decoder="ctc",
        parameters=4_250_000,
        licence="Apache-2.0",
        languages=("en",),
        recipes=("pretrain/best_rq", "asr/tiny"),
        data=(Corpus("digits", "train", 0.25, "CC BY-SA 4.0", 400, "ab" * 32),),
        scores=(Score("digits test", "wer", 0.072, 0.059, 0.086, 400, "one unseen speaker"),),
        limits=("It knows digits alone.",),
        commands=("eval_pack.py --model tiny --split test",),
        step=1200,
        weights_sha256="cd" * 32,
    )


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_card(tmp_path, make_card())
    assert read_card(tmp_path) == make_card()


def test_an_optional_field_may_be_left_out(tmp_path: Path) -> None:
    row = {"name": "a", "summary": "b", "encoder": "ast", "parameters": 1, "licence": "c"}
    (tmp_path / "card.json").write_text(json.dumps(row))
    assert read_card(tmp_path).scores == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": None}, "lacks parameters"),
        ({"limit": []}, "unknown field 'limit'. Did you mean limits"),
        ({"scores": [{"test_set": "x", "metric": "wer"}]}, "lacks value"),
        ({"data": ["digits"]}, "expected an object, got 'digits'"),
    ],
)
def test_a_wrong_card_names_its_field(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    write_card(tmp_path, make_card())
    row = json.loads((tmp_path / "card.json").read_text()) | change
    kept = {name: value for name, value in row.items() if value is not None}
    (tmp_path / "card.json").write_text(json.dumps(kept))
    with pytest.raises(CheckpointError, match=message):
        read_card(tmp_path)


def test_a_missing_or_broken_card_names_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"'{tmp_path.name}' has no card.json"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_card(tmp_path)


def test_the_page_states_data_scores_and_limits() -> None:
    page = render_card(make_card())
    assert page.startswith("# tiny\n")
    assert f"| digits | train | 400 | 0.25 | CC BY-SA 4.0 | {'ab' * 32} |" in page
    assert "| digits test | WER | 7.2 % (5.9 to 8.6) | 400 | one unseen speaker |" in page
    assert "- It knows digits alone." in page
    assert "4.2 million" in page
    assert "| chosen on dev at step | 1200 |" in page
    assert "- `eval_pack.py --model tiny --split test`" in page


def test_a_score_without_an_interval_has_none() -> None:
    assert format_score(Score("a", "wer", 0.5)) == "50.0 %"


def test_scores_come_from_a_report_of_the_pack() -> None:
    rows = [
        {
            "set": "digits",
            "headline": "wer",
            "wer": 0.07,
            "wer_interval": {"low": 0.05, "high": 0.09, "level": 0.95},
            "items": [{"id": "a"}, {"id": "b"}],
            "note": "one unseen speaker",
        },
        {"set": "words", "headline": "cer", "cer": 0.2, "cer_interval": None, "items": 3},
        {"set": "noise", "headline": "wer", "wer": None, "wer_interval": None, "items": 0},
    ]
    assert scores_from_report({"sets": rows}) == (
        Score("digits", "wer", 0.07, 0.05, 0.09, 2, "one unseen speaker"),
        Score("words", "cer", 0.2, None, None, 3, ""),
    )


def test_training_ids_are_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "training_ids.txt").write_text("# digits\na-1\n\n  a-2 \n")
    assert training_ids(tmp_path) == {"a-1", "a-2"}
    with pytest.raises(CheckpointError, match=r"has no training_ids\.txt"):
        training_ids(tmp_path / "nowhere")


def test_a_bundled_model_is_a_folder_with_a_config(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "config.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    assert bundled_models(tmp_path) == {"real": tmp_path / "real"}
    assert find_bundled("real", tmp_path) == tmp_path / "real"
    with pytest.raises(CatalogError, match=r"is named 'reel'\. Did you mean real"):
        find_bundled("reel", tmp_path)
