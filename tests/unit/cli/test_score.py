from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from speechadapt.cli import score
from speechadapt.core.errors import CatalogError, DataError

RUNNER = CliRunner()


def run(*arguments: str | Path) -> str:
    app = typer.Typer()
    app.command()(score.command)
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def transcripts(tmp_path: Path) -> Path:
    rows = [
        {
            "audio_filepath": "a.wav",
            "speaker": "ann",
            "text": "a dark roast",
            "pred_text": "a roast",
        },
        {"audio_filepath": "b.wav", "speaker": "zoe", "text": "stop", "pred_text": None},
        {"audio_filepath": "c.wav", "speaker": "zoe", "text": "Go on!", "pred_text": "go on"},
        {"audio_filepath": "d.wav", "text": "", "pred_text": "thank you"},
        {"audio_filepath": "e.wav", "text": None, "pred_text": "x"},
    ]
    path = tmp_path / "transcripts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_table_says_rates_edits_coverage_and_versions(transcripts: Path) -> None:
    output = run(transcripts)
    assert "WER %       33.3 [33.3, 33.3]" in output
    assert "words       6: 4 right, 0 inserted, 2 deleted, 0 substituted" in output
    assert "coverage    3 of 4 references have a hypothesis" in output
    assert "1 missing, as deletions" in output
    assert "interval    95% bootstrap over 2 speakers" in output
    assert "normaliser  verbatim 1" in output
    assert "scorer      jiwer 4" in output
    assert "non-speech  1 items, 2 words inserted there" in output
    assert "unscored    1 items without a reference" in output


def test_the_worst_items_are_shown_aligned(transcripts: Path) -> None:
    output = run(transcripts, "--worst", "1")
    assert "Worst 1 of 3 items:" in output
    assert "b.wav: 1 of 1, no hypothesis\n  REF stop\n  HYP ****\n      D\n" in output
    assert "REF a dark roast" not in output
    assert "Worst" not in run(transcripts, "--worst", "0")


def test_json_holds_the_same_numbers(transcripts: Path) -> None:
    found = json.loads(run(transcripts, "--json", "--group-by", "speaker"))
    assert found["wer"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["missing_hypotheses"] == 1
    assert found["joined_by"] == "row"
    assert {group["set"]: group["wer"] for group in found["groups"]} == {
        "speaker=(none)": None,
        "speaker=ann": pytest.approx(1 / 3, abs=1e-6),
        "speaker=zoe": pytest.approx(1 / 3, abs=1e-6),
    }


def test_groups_get_a_table(transcripts: Path) -> None:
    output = run(transcripts, "--group-by", "speaker")
    assert "| speaker=ann | 1 | 3 |" in output
    assert "| speaker=zoe | 2 | 3 |" in output


def test_edits_per_item_are_written(transcripts: Path, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    run(transcripts, "--per-item", path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"], row["words"]["deletions"]) for row in rows] == [
        ("a.wav", 1),
        ("b.wav", 1),
        ("c.wav", 0),
    ]


def test_two_text_files_are_scored(tmp_path: Path) -> None:
    reference, hypothesis = tmp_path / "ref.txt", tmp_path / "hyp.txt"
    reference.write_text("nine eight\nthe grey cat\n")
    hypothesis.write_text("98\nthe gray cat\n")
    assert "WER %       60.0 [" in run(reference, hypothesis)
    folded = run(reference, hypothesis, "--normaliser", "whisper", "--lang", "en")
    assert "WER %       0.0 [0.0, 0.0]" in folded
    assert "normaliser  whisper 1 [en] (transformers" in folded


def test_characters_come_first_in_chinese(tmp_path: Path) -> None:
    path = tmp_path / "ref.txt"
    path.write_text("\u4f60\u597d\n")
    assert run(path, path, "--lang", "zh").startswith("CER %")


def test_hypotheses_nobody_asked_for_are_named(tmp_path: Path) -> None:
    for side, names in (("ref", "a"), ("hyp", "ab")):
        for name in names:
            (tmp_path / side).mkdir(exist_ok=True)
            (tmp_path / side / f"{name}.txt").write_text("one\n")
    output = run(tmp_path / "ref", tmp_path / "hyp")
    assert "extra       1 hypotheses without a reference: b" in output


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    path.write_text('{"text": "a", "pred_text": "a"}\n{"text"\n')
    with pytest.raises(DataError, match=r"both\.jsonl line 2 is not JSON"):
        run(path)


def test_an_unknown_normaliser_names_a_near_one(transcripts: Path) -> None:
    with pytest.raises(CatalogError, match="Did you mean verbatim"):
        run(transcripts, "--normaliser", "verbatum")


def test_importing_the_verb_loads_nothing_heavy() -> None:
    code = (
        "import sys; import speechadapt.cli.score; "
        "print({'torch', 'transformers', 'jiwer', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
