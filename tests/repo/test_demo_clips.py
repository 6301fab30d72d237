"""The shipped clips: real audio that reads back, transcripts that agree, licences for each."""

from __future__ import annotations

import subprocess
from pathlib import Path

import soundfile

from speechadapt.data.manifest import Utterance, read_manifest
from tests.repo.project import PACKAGE, ROOT

DEMO = PACKAGE / "demo"
MOST_BYTES = 1_500_000


def rows(name: str = "manifest") -> list[Utterance]:
    """Return the rows of a demo manifest."""
    return read_manifest(DEMO / f"{name}.jsonl")


def all_rows() -> list[Utterance]:
    """Return the rows of the clips to transcribe and of those to restore."""
    return [*rows(), *rows("noisy")]


def test_the_manifest_names_every_clip_once(demo_clips: Path) -> None:
    named = [DEMO / row.audio_filepath for row in rows()]
    assert sorted(named) == sorted(demo_clips.glob("*.flac"))
    assert len(set(named)) == len(named) >= 8


def test_the_text_beside_a_clip_is_the_manifests() -> None:
    for row in rows():
        beside = (DEMO / row.audio_filepath).with_suffix(".txt")
        assert beside.read_text(encoding="utf-8") == f"{row.text}\n"


def test_two_noisy_clips_are_held_out_and_have_no_text_beside_them() -> None:
    named = [DEMO / row.audio_filepath for row in rows("noisy")]
    assert sorted(named) == sorted((DEMO / "noisy").iterdir())
    assert len(named) == 2
    forbidden = (ROOT / "tests" / "repo" / "forbidden_ids.txt").read_text().split()
    assert {row.id for row in rows("noisy")} <= set(forbidden)


def demo_commands(folder: Path) -> str:
    """Return what `make demo` would run in a checkout."""
    told = ["make", "--no-print-directory", "--dry-run", "--always-make"]
    told += ["-f", str(ROOT / "Makefile"), "demo"]
    done = subprocess.run(told, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_restores_only_where_a_restorer_is_bundled(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    lines = demo_commands(tmp_path).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("if [ -d"))
    script = "\n".join(lines[first:]).replace(".venv/bin/speechadapt", "echo ran")
    for bundled in (False, True):
        if bundled:
            (tmp_path / "speechadapt" / "pretrained" / "mini-restorer").mkdir(parents=True)
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0
        assert ("ran restore speechadapt/demo/noisy" in done.stdout) == bundled
        assert bool(done.stdout) == bundled


def test_every_clip_reads_back_with_its_length() -> None:
    for row in all_rows():
        samples, rate = soundfile.read(DEMO / row.audio_filepath)
        assert rate == 16000
        assert samples.ndim == 1
        assert row.duration is not None
        assert abs(len(samples) / rate - row.duration) < 0.002
        assert abs(samples).max() > 0.01


def test_every_clip_has_a_licence_with_attribution() -> None:
    page = (DEMO / "LICENCES.md").read_text(encoding="utf-8")
    for row in all_rows():
        corpus = row.id.partition("-")[0]
        line = next(line for line in page.splitlines() if f"`{corpus}-*`" in line)
        assert row.extra["licence"] in line


def test_the_clips_stay_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*.*")) < MOST_BYTES
