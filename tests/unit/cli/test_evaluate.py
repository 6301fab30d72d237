"""The verb `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from speechadapt.cli.evaluate import app
from speechadapt.core.errors import ConfigError


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    for side in ("ref", "deg"):
        (tmp_path / side).mkdir()
        signal = 0.1 * random.standard_normal(8000)
        soundfile.write(tmp_path / side / "a.wav", signal.astype(np.float32), 16000)
    return tmp_path / "ref", tmp_path / "deg"


def test_scores_come_as_a_table_or_as_json(folders: tuple[Path, Path], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    text = run("restoration", *folders, "--score", "none", "--per-item", rows)
    assert "| lsd_db |" in text
    assert "Means over 1 files" in text
    found = json.loads(run("restoration", *folders, "--score", "none", "--json"))
    assert found["scores"]["lsd_db"]["degraded"]["mean"] > 1.0
    assert "pesq" not in found["scores"]
    row = json.loads(rows.read_text())
    assert row["id"] == "a"
    assert row["scores"]["lsd_db"] == found["scores"]["lsd_db"]["degraded"]["mean"]


def test_pictures_are_drawn_where_asked(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("restoration", *folders, "--score", "none", "--pictures", tmp_path / "drawn")
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"worst.png", "median.png"}


def test_an_unknown_score_names_the_near_one(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="Did you mean pesq"):
        run("restoration", *folders, "--score", "pesk")


class Ear:
    """Hears one word, and voices that are all alike."""

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        return np.array([1.0, 0.0], dtype=np.float32)

    def fingerprint(self) -> dict[str, object]:
        return {}


def test_models_judge_where_they_are_asked_for(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechadapt.models.recogniser import Recogniser
    from speechadapt.models.transcript import Transcript

    class Reader(Recogniser):
        def __init__(self) -> None:
            pass

        def transcribe(self, audio, sample_rate=None, *, batch_size=8) -> Transcript:
            return Transcript("yes" if "ref" in str(audio) else "yes no", None, (), 1.0)

    asked: list[object] = []
    monkeypatch.setattr("speechadapt.models.build.load", lambda x: asked.append(x) or Reader())
    monkeypatch.setattr(
        "speechadapt.models.speaker.load_speaker_model", lambda x: asked.append(x) or Ear()
    )
    words = ["--score", "words", "--score", "speaker=some/folder"]
    found = json.loads(run("restoration", *folders, *words, "--json"))
    assert asked == ["some/folder", "mini-whisper"]
    assert found["scores"]["speaker"]["degraded"]["mean"] == 1.0
    assert "pesq" not in found["scores"]
    assert found["words"]["references"] == {"transcribed": 0, "heard": 1}
    (side,) = found["words"]["sets"]
    assert (side["set"], side["wer"], side["words"]["insertions"]) == ("degraded", 1.0, 1)
    text = run("restoration", *folders, "--score", "words=other")
    assert asked[-1] == "other"
    assert "ins del sub" in text
    assert "0 transcripts and 1 times" in text
