"""The shipped clips: real audio that reads back, transcripts that agree, licences for each."""

from __future__ import annotations

from pathlib import Path

import soundfile

from speechadapt.data.manifest import Utterance, read_manifest
from tests.repo.project import PACKAGE

DEMO = PACKAGE / "demo"
MOST_BYTES = 1_500_000


def rows() -> list[Utterance]:
    """Return the rows of the demo manifest."""
    return read_manifest(DEMO / "manifest.jsonl")


def test_the_manifest_names_every_clip_once(demo_clips: Path) -> None:
    named = [DEMO / row.audio_filepath for row in rows()]
    assert sorted(named) == sorted(demo_clips.glob("*.flac"))
    assert len(set(named)) == len(named) >= 8


def test_the_text_beside_a_clip_is_the_manifests() -> None:
    for row in rows():
        beside = (DEMO / row.audio_filepath).with_suffix(".txt")
        assert beside.read_text(encoding="utf-8") == f"{row.text}\n"


def test_every_clip_reads_back_with_its_length() -> None:
    for row in rows():
        samples, rate = soundfile.read(DEMO / row.audio_filepath)
        assert rate == 16000
        assert samples.ndim == 1
        assert row.duration is not None
        assert abs(len(samples) / rate - row.duration) < 0.002
        assert abs(samples).max() > 0.01


def test_every_clip_has_a_licence_with_attribution() -> None:
    page = (DEMO / "LICENCES.md").read_text(encoding="utf-8")
    for row in rows():
        corpus = row.id.partition("-")[0]
        line = next(line for line in page.splitlines() if f"`{corpus}-*`" in line)
        assert row.extra["licence"] in line


def test_the_clips_stay_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*.*")) < MOST_BYTES
