from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechadapt.data.manifest import Utterance
from speechadapt.training.adapt.text import Speller
from speechadapt.training.own.data import (
    LEFT_OUT,
    NOTED,
    CheckConfig,
    Checked,
    check_rows,
    manifest_rows,
)
from tests.own_data import NEEDS, row, tone, write

Rows = Callable[[Path], list[Utterance]]


def looked_over(*rows: Utterance, config: CheckConfig | None = None) -> Checked:
    return check_rows(rows, NEEDS, config or CheckConfig(), Speller())


def cut_short(folder: Path) -> list[Utterance]:
    path = Path(write(folder / "x.wav", tone(2.0)))
    path.write_bytes(path.read_bytes()[:-30000])
    return [row(str(path))]


def not_audio(folder: Path) -> list[Utterance]:
    (folder / "x.wav").write_bytes(b"these are no samples" * 50)
    return [row(str(folder / "x.wav"))]


def empty(folder: Path) -> list[Utterance]:
    (folder / "x.wav").write_bytes(b"")
    return [row(str(folder / "x.wav"))]


def contradicted(folder: Path) -> list[Utterance]:
    return [row(write(folder / f"{name}.wav", tone()), name) for name in ("yes", "no")]


def twice(folder: Path) -> list[Utterance]:
    return [row(write(folder / f"{name}.wav", tone()), "one") for name in ("a", "b")]


@pytest.mark.parametrize(
    ("make", "kind", "detail"),
    [
        (lambda f: [row(write(f / "x.wav", tone()), None)], "no_text", "no text"),
        (lambda f: [row(write(f / "x.wav", tone()), " \n")], "no_text", "no text"),
        (lambda f: [row(write(f / "x.wav", tone()), "...!")], "empty_text", "no letter"),
        (lambda f: [row(str(f / "gone.wav"))], "unreadable", "No such file"),
        (empty, "unreadable", "no bytes"),
        (not_audio, "unreadable", "x.wav"),
        (cut_short, "cut_short", "header says 2.00 s"),
        (lambda f: [row(write(f / "x.wav", tone(5.0)))], "too_long", "5.0 s; up to 4 s"),
        (lambda f: [row(write(f / "x.wav", tone(9.0)))], "too_long", "9.0 s; up to 4 s"),
        (lambda f: [row(write(f / "x.wav", 0 * tone()))], "silent", "dB of full scale"),
        (
            lambda f: [row(write(f / "x.wav", tone(0.5)), "abcdefgh" * 3)],
            "too_many_letters",
            "24 letters in 0.5",
        ),
        (twice, "repeated", "as 'a'"),
        (contradicted, "contradicted", "the texts are 'no', 'yes'"),
    ],
)
def test_rows_that_would_teach_a_wrong_thing_are_left_out(
    make: Rows, kind: str, detail: str, tmp_path: Path
) -> None:
    bad = make(tmp_path)
    good = row(write(tmp_path / "good.wav", tone(2.0, pitch=500.0)))
    found = looked_over(*bad, good)
    assert {finding.kind for finding in found.findings} == {kind}
    assert detail in found.findings[0].detail
    assert found.findings[0].left_out
    kept = [one.id for one in found.rows]
    assert kept == (["a", "good"] if kind == "repeated" else ["good"])
    assert found.total == len(bad) + 1
    assert list(found.by_kind(LEFT_OUT)) == [kind]
    assert found.by_kind(NOTED) == {}


@pytest.mark.parametrize(
    ("make", "kind", "detail"),
    [
        (lambda f: write(f / "x.wav", np.clip(9 * tone(), -1, 1)), "clipped", "at full scale"),
        (lambda f: write(f / "x.wav", tone(level=0.003)), "faint", "its level is -53 dB"),
        (lambda f: write(f / "x.wav", tone(3.9), 16000), "few_letters", "3 letters in 3.9 s"),
        (lambda f: write(f / "x.wav", tone()[::2], 8000), "narrow", "8000 Hz; the model reads"),
    ],
)
def test_what_is_only_doubtful_is_noted_and_kept(
    make: Callable[[Path], str], kind: str, detail: str, tmp_path: Path
) -> None:
    found = looked_over(row(make(tmp_path), "one"))
    (finding,) = found.findings
    assert (finding.kind, finding.left_out) == (kind, False)
    assert detail in finding.detail
    assert len(found.rows) == 1
    assert finding.to_json()["reason"] == kind


def test_a_good_row_gets_its_length_and_the_hash_of_its_samples(tmp_path: Path) -> None:
    whole = row(write(tmp_path / "a.wav", tone(2.0)))
    part = replace(whole, id="part", offset=0.5, duration=1.0)
    found = looked_over(whole, part)
    assert not found.findings
    assert [one.duration for one in found.rows] == [2.0, 1.0]
    assert len({one.extra["audio_sha256"] for one in found.rows}) == 2


def test_a_model_needs_a_frame_for_every_letter(tmp_path: Path) -> None:
    slow = replace(NEEDS, frame_rate=6.0)
    found = check_rows(
        [row(write(tmp_path / "a.wav", tone()), "abcdefg")], slow, CheckConfig(), Speller()
    )
    assert found.findings[0].detail == "7 letters, for which the model has 6 frames"


def test_limits_can_be_moved_but_not_beyond_the_model(tmp_path: Path) -> None:
    long = row(write(tmp_path / "a.wav", tone(3.0)))
    assert looked_over(long, config=CheckConfig(max_s=2.0)).findings[0].kind == "too_long"
    longer = row(write(tmp_path / "b.wav", tone(4.5)))
    assert looked_over(longer, config=CheckConfig(max_s=60.0)).findings[0].kind == "too_long"


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    rows = [row(write(tmp_path / "a.wav", tone())), row("nowhere.wav")]
    check_rows(rows, NEEDS, CheckConfig(), Speller(), lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]


def test_manifest_rows_name_their_split_and_are_in_order() -> None:
    rows = manifest_rows({"train": [row("b.wav")], "test": [row("a.wav", speaker="ann")]})
    assert [(one["id"], one["split"]) for one in rows] == [("a", "test"), ("b", "train")]
    assert json.loads(json.dumps(rows)) == rows
