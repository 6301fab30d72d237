"""Speakers and words of pairs: whole recordings compared, nothing left out in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.core.errors import AudioError
from speechadapt.metrics.quality_report import Pair, score_signals
from speechadapt.models.pair_judges import SpeakerScore, judge_words
from speechadapt.models.recogniser import Recogniser
from speechadapt.models.transcript import Transcript

RATE = 16000


class Level:
    """A voice is how loud it is."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        self.heard.append(len(waveform))
        size = float(np.abs(waveform).mean())
        return np.array([np.cos(size), np.sin(size)], dtype=np.float32)

    def fingerprint(self) -> dict[str, object]:
        return {}


class Reader(Recogniser):
    """Hears what a file is called; a file of another suffix it cannot read."""

    def __init__(self) -> None:
        pass

    def transcribe(self, audio, sample_rate=None, *, batch_size=8) -> Transcript:
        if Path(audio).suffix != ".wav":
            raise AudioError("UNREADABLE", "no audio")
        return Transcript(Path(audio).stem.replace("-", " "), None, (), 1.0)


def noise(seconds: float, size: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(0)
    return (size * random.standard_normal(round(seconds * RATE))).astype(np.float32)


def test_one_voice_is_near_itself_and_another_is_not() -> None:
    judge = SpeakerScore(Level())
    assert judge(noise(1), noise(1), RATE)["speaker"] == pytest.approx(1.0)
    far = judge(noise(1), noise(1, size=1.5), RATE)["speaker"]
    assert far == pytest.approx(np.cos((1.5 - 0.1) * np.sqrt(2 / np.pi)), abs=0.01)
    scores = score_signals(noise(1), noise(1), RATE, (), [judge])
    assert scores["speaker"] == pytest.approx(1.0)


def test_a_long_recording_is_heard_whole_in_pieces_at_16_khz() -> None:
    level = Level()
    SpeakerScore(level)(noise(50), noise(50), 2 * RATE)
    assert len(level.heard) == 4
    assert sum(level.heard) == pytest.approx(2 * 25 * RATE, abs=4)
    assert max(level.heard) <= 20 * RATE


def test_silence_and_very_short_recordings_have_no_speaker() -> None:
    judge = SpeakerScore(Level())
    silence = np.zeros(RATE, dtype=np.float32)
    assert judge(silence, noise(1), RATE) == {"speaker": None}
    assert judge(noise(1), silence, RATE) == {"speaker": None}
    assert judge(noise(0.4), noise(0.4), RATE) == {"speaker": None}


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(0.1), RATE)
    return path


def test_words_are_held_against_the_text_or_against_what_the_clean_file_says(
    tmp_path: Path,
) -> None:
    read = write(tmp_path / "ref" / "one-two.wav")
    read.with_suffix(".txt").write_text("one two three four\n")
    unread = write(tmp_path / "ref" / "stop-now.wav")
    after, before = tmp_path / "deg", tmp_path / "was"
    pairs = [
        Pair("a", read, after / "one-two.wav", before / "one-two-tree-four.wav"),
        Pair("b", unread, after / "stop-now-now.wav", before / "lost.mp3"),
    ]
    words = judge_words(pairs, Reader())
    assert (words.transcribed, words.heard) == (1, 1)
    was, now = words.sides
    assert (was.name, now.name) == ("before", "degraded")
    # "four" and "three" are missing, and a second "now" came in
    counts = now.score.words
    assert (counts.insertions, counts.deletions, counts.substitutions) == (1, 2, 0)
    assert now.wer.estimate == pytest.approx(3 / 6)
    # one word is another, and nothing is heard in a file that cannot be read
    assert (was.score.words.substitutions, was.score.words.deletions) == (1, 2)
    assert was.score.missing == 1


def test_without_a_before_there_is_one_side_and_a_missing_file_is_silent(tmp_path: Path) -> None:
    words = judge_words([Pair("a", write(tmp_path / "go.wav"), None)], Reader())
    (side,) = words.sides
    assert (side.score.wer, side.score.missing) == (1.0, 1)
    lost = judge_words([Pair("a", tmp_path / "go.mp3", None)], Reader())
    assert lost.sides[0].score.unscored == 1
