"""The first command, as a new user runs it: shipped clips in, transcripts and scores out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from speechadapt.core.files import read_lines
from speechadapt.models.card import bundled_models
from tests.command import call
from tests.e2e.jobs import journal, tree

pytestmark = pytest.mark.skipif(not bundled_models(), reason="no model is bundled yet")

MOST_WORD_ERRORS = 0.5  # of 39 words; the cards hold the real scores, this tells speech from noise


@pytest.fixture(scope="module")
def demo(
    demo_clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the demo once and return what it printed and its output folder."""
    output = tmp_path_factory.mktemp("demo") / "demo-out"
    return transcribe(demo_clips, output), output


def transcribe(clips: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run `speechadapt transcribe` in a process of its own, offline."""
    command = [sys.executable, "-m", "speechadapt.cli.main", "transcribe", str(clips)]
    return subprocess.run(
        [*command, "-o", str(output)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


Demo = tuple[subprocess.CompletedProcess[str], Path]


def test_the_demo_ends_well_and_prints_its_table(demo: Demo) -> None:
    done, output = demo
    assert done.returncode == 0, done.stderr
    printed = done.stdout.lower()
    for word in ("wer", "rtf", "coverage", "verbatim", str(output).lower()):
        assert word in printed


def test_every_clip_has_its_row_and_its_files(demo: Demo, demo_clips: Path) -> None:
    _, output = demo
    rows = {row["audio_filepath"]: row for _, row in read_lines(output / "transcripts.jsonl")}
    clips = sorted(demo_clips.glob("*.flac"))
    assert sorted(rows) == [clip.name for clip in clips]
    for clip in clips:
        row = rows[clip.name]
        assert row["text"] == clip.with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert row["status"] in ("ok", "flagged")
        text = (output / clip.name).with_suffix(".txt").read_text(encoding="utf-8")
        assert " ".join(text.split()) == row["pred_text"]


def test_the_words_are_mostly_right(demo: Demo) -> None:
    _, output = demo
    from speechadapt.metrics.report import score_transcripts

    scored = score_transcripts("demo", output / "transcripts.jsonl")
    assert scored.score.wer <= MOST_WORD_ERRORS


def test_isolated_words_are_right(demo: Demo) -> None:
    _, output = demo
    rows = [row for _, row in read_lines(output / "transcripts.jsonl")]
    words = [row for row in rows if len(row["text"].split()) <= 2]
    assert len(words) == 5
    assert [row["pred_text"] for row in words] == [row["text"] for row in words]


def test_running_it_again_changes_nothing(demo: Demo, demo_clips: Path) -> None:
    done, output = demo
    assert done.returncode == 0
    before = tree(output)
    done_before = journal(output)
    assert call("transcribe", demo_clips, "-o", output) == 0
    assert tree(output) == before
    assert journal(output) == done_before
