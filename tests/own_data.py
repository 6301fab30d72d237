"""Recordings of made tones as a person would have them: a folder of sounds and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from speechadapt.data.manifest import Utterance
from speechadapt.training.own.data import Needs
from tests import synthetic

NEEDS = Needs(sample_rate=16000, frame_rate=50.0, longest_s=4.0)


def tone(seconds: float = 1.0, level: float = 0.2, pitch: float = 300.0) -> np.ndarray:
    """Return a tone."""
    time = np.arange(int(16000 * seconds)) / 16000
    return (level * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def write(path: Path, signal: np.ndarray, rate: int = 16000) -> str:
    """Write a recording and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, rate, subtype="PCM_16")
    return str(path)


def row(audio: str, text: str | None = "one two", **more: object) -> Utterance:
    """Return a row that is called as its file is."""
    return Utterance(audio, text=text, id=Path(audio).stem, **more)  # type: ignore[arg-type]


def write_folder(folder: Path, speakers: int = 4, each: int = 5) -> Path:
    """Write `<speaker>/<number>.wav` with `.txt` beside it: words of two tones each.

    Args:
        folder: Is made.
        speakers: Folders.
        each: Recordings of each.
    """
    random = np.random.default_rng(5)
    for speaker in range(speakers):
        for number in range(each):
            words = [str(word) for word in random.choice(synthetic.WORDS, size=2)]
            stem = folder / f"voice{speaker}" / f"{number}"
            write(stem.with_suffix(".wav"), synthetic.say(words, random).astype(np.float32))
            stem.with_suffix(".txt").write_text(" ".join(words) + "\n")
    return folder
