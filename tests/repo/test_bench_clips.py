"""The clips of the benchmarks: the same ones every time, of the lengths and groups promised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import bench_clips
import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.data.manifest import Utterance

Pack = Callable[[dict[str, list[tuple[str, str]]]], Path]


@pytest.fixture
def make_pack(tmp_path: Path, demo_clips: Path) -> Pack:
    """Write a pack: corpus -> (split, language) per clip, the audio being shipped clips."""
    audio = sorted(demo_clips.glob("*.flac"))

    def make(corpora: dict[str, list[tuple[str, str]]]) -> Path:
        root = tmp_path / "pack"
        (root / "manifests").mkdir(parents=True)
        for corpus, entries in corpora.items():
            rows = []
            for number, (split, lang) in enumerate(entries):
                place = root / "audio" / corpus / f"{corpus}{number}.flac"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(audio[number % len(audio)], place)
                rows.append(
                    {
                        "id": f"{corpus}-{number}",
                        "audio": place.relative_to(root).as_posix(),
                        "split": split,
                        "duration": soundfile.info(place).duration,
                        "lang": lang,
                        "text": "a",
                    }
                )
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (root / "manifests" / f"{corpus}.jsonl").write_text(lines)
        return root

    return make


def test_short_clips_are_real_sorted_and_within_the_lengths() -> None:
    clips = bench_clips.short_clips(None, 12)
    seconds = [len(one) / bench_clips.SAMPLE_RATE for one in clips.waveforms]
    assert len(seconds) == 12
    assert seconds == sorted(seconds)
    assert 1.0 <= seconds[0] < seconds[-1] <= 5.0
    assert all(np.abs(one).max() > 0.01 for one in clips.waveforms)
    assert clips.source.startswith("shipped demo clips, repeated")
    assert clips.audio_s == pytest.approx(sum(seconds))


def test_the_same_clips_are_chosen_every_time() -> None:
    first, second = (bench_clips.short_clips(None, 3).waveforms for _ in range(2))
    assert [len(one) for one in first] == [len(one) for one in second]


def test_a_folder_holds_every_group_with_repeats_under_other_names(
    make_pack: Pack, tmp_path: Path
) -> None:
    test, unseen = ("test", "en"), ("test_speaker", "en")
    pack = make_pack(
        {
            "orders": [test] * 5 + [("train", "en")],
            "wake": [test] * 2,
            "connected": [test, ("test", "ar")],
            "fsdd": [unseen] * 3,
            "librispeech": [test],
            "vctk": [test],
        }
    )
    folder = bench_clips.write_folder(pack, tmp_path / "clips", 4)
    names = {
        group.name: sorted(path.name.partition("-")[2] for path in group.iterdir())
        for group in (tmp_path / "clips").iterdir()
    }
    assert {group: len(files) for group, files in names.items()} == dict.fromkeys(
        ("orders", "wake", "digits", "sentences"), 4
    )
    assert "orders5.flac" not in names["orders"]
    assert names["wake"] == ["wake0.flac", "wake0.flac", "wake1.flac", "wake1.flac"]
    assert names["digits"] == ["connected0.flac", "fsdd0.flac", "fsdd1.flac", "fsdd2.flac"]
    assert (folder.count, folder.from_pack) == (16, True)
    written = [soundfile.info(path) for path in (tmp_path / "clips").rglob("*.flac")]
    assert folder.audio_s == pytest.approx(sum(one.duration for one in written))


def test_without_clips_that_fit_it_says_so(make_pack: Pack) -> None:
    pack = make_pack({name: [("test", "en")] for name, _ in bench_clips.SHORT})
    with pytest.raises(DataError, match="none of the sets has one that fits"):
        bench_clips.short_clips(pack, 2, shortest_s=100.0, longest_s=200.0)


def test_clips_at_another_rate_are_refused(make_pack: Pack) -> None:
    pack = make_pack({name: [("test", "en")] for name, _ in bench_clips.SHORT})
    for path in (pack / "audio").rglob("*.flac"):
        samples, _ = soundfile.read(path)
        soundfile.write(path, samples, 8000)
    with pytest.raises(DataError, match="at 8000 Hz"):
        bench_clips.short_clips(pack, 2, shortest_s=0.1)


def test_a_folder_that_is_no_pack_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    assert bench_clips.find_pack(None) is None
    with pytest.raises(ConfigError, match="holds no manifests"):
        bench_clips.find_pack(tmp_path)


def test_the_order_does_not_follow_the_names() -> None:
    rows = [Utterance("x", id=f"clip-{number}") for number in range(20)]
    mixed = bench_clips.by_hash(rows)
    assert mixed != rows
    assert bench_clips.by_hash(reversed(rows)) == mixed
