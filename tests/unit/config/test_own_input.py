from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechadapt.config.own_input import gather
from speechadapt.core.errors import ConfigError, DataError
from tests.own_data import tone, write, write_folder


def test_a_folder_gives_recordings_with_the_texts_beside_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", speakers=2, each=2)
    (folder / "voice0/0.txt").unlink()
    (folder / "lost.txt").write_text("nobody says this")
    (folder / "voice1/1.txt").write_bytes(b"\xff\xfe\xff")
    rows, lines = gather([str(folder)])
    assert [row.id for row in rows] == [
        "voice0/0.wav", "voice0/1.wav", "voice1/0.wav", "voice1/1.wav"
    ]  # fmt: skip
    assert [row.text is None for row in rows] == [True, False, False, True]
    assert Path(rows[0].audio_filepath) == folder / "voice0/0.wav"
    assert {row.speaker for row in rows} == {None}
    assert "cannot be read: it is not UTF-8" in lines[0]
    assert lines[1] == f"1 texts without a recording beside them: {folder / 'lost.txt'}"


def test_folders_can_name_the_speakers(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", speakers=2, each=1)
    write(folder / "loose.wav", tone())
    rows, _ = gather([str(folder)], "folder")
    assert [row.speaker for row in rows] == [None, "voice0", "voice1"]


def test_a_manifest_keeps_its_splits_and_speakers(tmp_path: Path) -> None:
    write(tmp_path / "audio/a.wav", tone())
    path = tmp_path / "mine.jsonl"
    row = {"audio_filepath": "audio/a.wav", "text": "one", "speaker": "ann", "split": "dev"}
    path.write_text(json.dumps(row) + "\n")
    ((found,), lines) = gather([str(path)])
    assert (found.speaker, found.extra["split"], lines) == ("ann", "dev", [])
    assert gather([str(path)], "folder")[0][0].speaker == "audio"


def test_inputs_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        gather([str(tmp_path / "gone")])
    with pytest.raises(DataError, match=r"gone\.jsonl' cannot be read"):
        gather([str(tmp_path / "gone.jsonl")])
    with pytest.raises(ConfigError, match="looked for audio"):
        gather([str(tmp_path)])


def test_cuts_of_lhotse_are_a_manifest() -> None:
    cuts = Path(__file__).parents[2] / "data" / "lhotse" / "cuts.jsonl.gz"
    rows, lines = gather([str(cuts)])
    assert [row.text for row in rows] == ["z\u00e9ro un", "un deux", None]
    assert [row.extra["split"] for row in rows] == ["train", "train", "dev"]
    assert {row.extra["corpus"] for row in rows} == {"cuts"}
    assert lines == []
    with pytest.raises(ConfigError, match="speechadapt shards unpack"):
        gather([str(cuts.with_name("shar"))])
