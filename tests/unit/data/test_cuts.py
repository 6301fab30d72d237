"""Cuts of lhotse: what they say comes back as a row, what a row cannot say is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.cuts import cut_row, is_cut
from speechadapt.data.manifest import Utterance, read_manifest

GOLDEN = Path(__file__).parents[2] / "data" / "lhotse"  # written by lhotse 1.33


@pytest.fixture
def cut() -> dict[str, Any]:
    """A cut with one supervision."""
    with (GOLDEN / "cuts.jsonl").open(encoding="utf-8") as handle:
        found: dict[str, Any] = json.loads(handle.readline())
    return found


def changed(cut: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a cut with another value at a place such as `recording.sources.0.type`."""
    new = copy.deepcopy(cut)
    *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    holder: Any = new
    for key in parents:
        holder = holder[key]
    holder[last] = value
    return new


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_cuts_are_read_packed_or_not(name: str) -> None:
    whole, part, silent = read_manifest(GOLDEN / name)
    assert whole == Utterance(
        "audio/a.flac", 0.5, 0.0, "zéro un", "fr", "ann", "a-whole",
        {"mood": "calm", "split": "train"},
    )  # fmt: skip
    assert (part.offset, part.duration, part.id) == (0.125, 0.25, "a-part")
    assert (silent.audio_filepath, silent.text, silent.lang) == ("audio/b.flac", None, None)


def test_texts_are_joined_as_they_begin_and_two_speakers_are_nobody() -> None:
    part = read_manifest(GOLDEN / "cuts.jsonl")[1]
    assert (part.text, part.lang, part.speaker) == ("un deux", "fr", None)


def test_rows_equal_what_lhotse_reads() -> None:
    lhotse = pytest.importorskip("lhotse")
    theirs = list(lhotse.CutSet.from_file(GOLDEN / "cuts.jsonl.gz"))
    ours = read_manifest(GOLDEN / "cuts.jsonl.gz")
    assert len(ours) == len(theirs) == 3
    for row, cut in zip(ours, theirs, strict=True):
        said = sorted(cut.supervisions, key=lambda one: one.start)
        assert (row.id, row.offset, row.duration) == (cut.id, cut.start, cut.duration)
        assert row.audio_filepath == cut.recording.sources[0].source
        assert row.text == (" ".join(one.text for one in said) or None)
        assert {row.lang} == ({one.language for one in said} or {None})


def test_rows_are_told_from_cuts(cut: dict[str, Any]) -> None:
    assert is_cut(cut)
    assert is_cut({"type": "PaddingCut"})
    assert not is_cut({"audio_filepath": "a", "type": "MonoCut"})
    assert not is_cut({"type": "sentence"})
    assert not is_cut([1])


def test_a_path_from_the_working_directory_is_found_as_lhotse_finds_it(
    cut: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)
    assert cut_row(cut, GOLDEN)["audio_filepath"] == "audio/a.flac"
    assert cut_row(cut, tmp_path)["audio_filepath"] == str(GOLDEN / "audio" / "a.flac")
    monkeypatch.chdir(tmp_path)
    assert cut_row(cut, tmp_path)["audio_filepath"] == "audio/a.flac"


def test_resampling_is_harmless_and_a_whole_stereo_file_is_mixed(cut: dict[str, Any]) -> None:
    row = cut_row(cut, GOLDEN)
    resampled = changed(cut, "recording.transforms", [{"name": "Resample", "kwargs": {}}])
    assert cut_row(resampled, GOLDEN) == row
    stereo = changed(cut, "recording.sources.0.channels", [0, 1]) | {"type": "MultiCut"}
    assert cut_row(stereo | {"channel": [1, 0]}, GOLDEN) == row


def test_a_url_stays_one(cut: dict[str, Any]) -> None:
    url = "s3://bucket/a.flac"
    away = changed(cut, "recording.sources.0", {"type": "url", "channels": [0], "source": url})
    assert cut_row(away, GOLDEN)["audio_filepath"] == url


def test_the_file_of_the_channel_is_chosen(cut: dict[str, Any]) -> None:
    sources = [
        {"type": "file", "channels": [number], "source": f"{number}.wav"} for number in (0, 1)
    ]
    two = changed(cut, "recording.sources", sources)
    assert cut_row(two | {"channel": 1}, GOLDEN)["audio_filepath"] == "1.wav"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("type", "MixedCut", "type 'MixedCut' is not one stretch of a recording. Write the audio"),
        ("recording", None, "recording is missing or names no sources"),
        ("start", "0", "start must be seconds, got '0'"),
        ("duration", None, "duration must be seconds, got None"),
        ("start", -1, "offset must be 0 or more seconds, got -1"),
        ("supervisions", {}, None),
        ("supervisions", "x", "supervisions must be a list of objects, got str"),
        ("supervisions.0.text", 5, "text of supervision 'a-s' must be text"),
        ("recording.transforms", [{"name": "Speed"}], r"'a' is changed while it is loaded \(Speed"),
        ("recording.sources.0.channels", [0, 1], r"channel \[0\] of recording 'a' .* \[\[0, 1\]\]"),
        ("channel", 3, r"channel \[3\] of recording 'a' was asked for"),
        ("recording.sources.0.type", "command", "'a' comes from a command, and no command"),
        ("recording.sources.0.type", "shar", "'a' lies in a tar; give the Shar folder"),
    ],
)
def test_what_no_row_can_say_is_refused_by_line_and_field(
    cut: dict[str, Any], tmp_path: Path, place: str, value: Any, message: str | None
) -> None:
    path = tmp_path / "cuts.jsonl"
    lines = [json.dumps(one) for one in (cut, changed(cut, place, value))]
    path.write_text("\n".join(lines), encoding="utf-8")
    if message is None:
        assert read_manifest(path)[1].text is None
        return
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(path)
    assert str(caught.value).startswith("cuts.jsonl line 2: ")
