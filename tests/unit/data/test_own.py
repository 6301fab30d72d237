from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import DataError
from speechadapt.data.own import corpus_of, load_own, own_rows, read_own


def manifest(folder: Path, *rows: dict[str, Any]) -> Path:
    """Write a manifest of two-second rows at 8 kHz, and the audio of those that have none."""
    path = folder / "mine.jsonl"
    ramp = np.arange(16000, dtype=np.float32) / 32000
    for row in rows:
        if not (folder / row["audio_filepath"]).exists():
            soundfile.write(folder / row["audio_filepath"], ramp, 8000, subtype="FLOAT")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"audio_filepath": f"{name}.wav", "text": "one"} | more


def test_rows_have_absolute_audio_unique_ids_and_their_split(tmp_path: Path) -> None:
    path = manifest(tmp_path, row("a", split="train"), row("a", split="validation", lang="de"))
    first, second = load_own(path)
    assert Path(first.audio_filepath) == tmp_path / "a.wav"
    assert (first.id, second.id) == ("a.wav", "a.wav#2")
    assert [one.extra["split"] for one in (first, second)] == ["train", "dev"]
    assert first.extra["corpus"] == corpus_of(path) == "mine"


def test_named_splits_are_kept_to_and_lengths_are_read(tmp_path: Path) -> None:
    path = manifest(
        tmp_path, row("a", split="train"), row("b", split="dev"), row("c", split="test")
    )
    (trained,) = own_rows(path, "train")
    assert (trained.id, trained.duration) == ("a.wav", pytest.approx(2.0))
    assert [one.id for one in own_rows(path, "dev")] == ["b.wav"]


def test_rows_without_splits_are_held_out_by_share(tmp_path: Path) -> None:
    path = manifest(tmp_path, *(row(f"r{number}") for number in range(10)))
    train = {one.id for one in own_rows(path, "train", 0.2)}
    dev = {one.id for one in own_rows(path, "dev", 0.2)}
    assert (len(train), len(dev)) == (8, 2)
    assert not train & dev


@pytest.mark.parametrize(
    ("rows", "held_out", "message"),
    [
        ([row("a"), row("b")], 0.0, "Give rows one, or set data.held_out=0.1"),
        ([row("a")], 0.5, "holds 1 rows"),
        ([row("a", split="train"), row("b")], 0.5, "1 of the 2 rows of .* name no split"),
        ([row("a", split="train"), row("b", split="test")], 0.5, "has no dev rows"),
        ([row("a", split="tran"), row("b")], 0.5, "names the split 'tran'. Did you mean train"),
    ],
)
def test_rows_that_cannot_be_divided_are_refused(
    rows: list[dict[str, Any]], held_out: float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        own_rows(manifest(tmp_path, *rows), "train", held_out)


def test_a_missing_manifest_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_own(tmp_path / "none.jsonl")


def test_a_part_of_a_file_is_read_at_the_rate_asked_for(tmp_path: Path) -> None:
    path = manifest(tmp_path, row("a", offset=0.5, duration=1.0))
    samples, rate = read_own(load_own(path)[0], 16000)
    assert (rate, len(samples)) == (16000, 16000)
    # the ramp stands at 4000 / 32000 after half a second
    assert samples[200] == pytest.approx(4100 / 32000, abs=1e-3)
