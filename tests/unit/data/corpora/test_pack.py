"""The development pack: rows by corpus and split, audio from files and from tars alike."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import DataError
from speechadapt.data.corpora.pack import corpora, load_corpus, load_splits, read_audio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a pack of two corpora, one unpacked and one still in its tar."""
    (tmp_path / "manifests").mkdir()
    for name, packed in (("loose", False), ("packed", True)):
        rows = []
        for number, split in enumerate(("train", "train", "test")):
            path = f"audio/{name}/{split}/{number}.flac"
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / path, np.full((80, 2), 0.1 * (number + 1)), 8000)
            row = {"id": f"{name}-{number}", "audio": path, "split": split, "duration": 0.01}
            rows.append(row | {"tar": f"audio/{name}-{split}.tar", "text": str(number)})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "manifests" / f"{name}.jsonl").write_text(text)
        if packed:
            for split in ("train", "test"):
                with tarfile.open(tmp_path / f"audio/{name}-{split}.tar", "w") as tar:
                    for path in sorted((tmp_path / f"audio/{name}/{split}").glob("*.flac")):
                        tar.add(path, path.relative_to(tmp_path))
                        path.unlink()
    return tmp_path


def test_corpora_and_splits_are_read_in_order(root: Path) -> None:
    assert corpora(root) == ["loose", "packed"]
    assert [row.id for row in load_corpus(root, "loose", "train")] == ["loose-0", "loose-1"]
    assert len(load_corpus(root, "loose")) == 3
    both = load_splits(root, ["packed", "loose"], "test")
    assert [row.id for row in both] == ["packed-2", "loose-2"]
    assert both[0].extra["corpus"] == "packed"


@pytest.mark.parametrize("name", ["loose", "packed"])
def test_audio_is_mono_and_the_same_from_a_file_and_from_a_tar(root: Path, name: str) -> None:
    for number, utterance in enumerate(load_corpus(root, name)):
        samples, rate = read_audio(root, utterance)
        assert rate == 8000
        assert samples.shape == (80,)
        assert samples.dtype == np.float32
        np.testing.assert_allclose(samples, 0.1 * (number + 1), atol=1e-4)


def test_unknown_names_get_near_misses(root: Path) -> None:
    with pytest.raises(DataError, match=r"no corpus 'lose' .* Did you mean loose\?"):
        load_corpus(root, "lose")
    with pytest.raises(DataError, match=r"has no split 'tests'\. Did you mean test\?"):
        load_corpus(root, "loose", "tests")


def test_missing_audio_names_the_utterance_and_where_it_was_looked_for(root: Path) -> None:
    (utterance,) = load_corpus(root, "loose", "test")
    (root / utterance.audio_filepath).unlink()
    with pytest.raises(DataError, match=r"'loose-2' needs .* or audio/loose-test\.tar"):
        read_audio(root, utterance)
