"""A made data pack for the tests of training: tones with made texts, none of it real speech.

It has the layout of a real pack (`data/corpora/pack.py`), so that recipes and tasks can be built
and stepped without one. Every word has its own two tones; a text is its words one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

WORDS = ("one", "two", "three", "four", "stop", "go", "left", "right")
SPLITS = {"train": 8, "dev": 2}
RATE = 16000


def write_pack(
    root: Path,
    speech: Iterable[str] = ("tones",),
    sounds: Iterable[str] = (),
    rooms: Iterable[str] = (),
    dev: int = SPLITS["dev"],
) -> Path:
    """Write a pack with so many corpora of made speech, noise and room responses.

    Args:
        root: The pack's folder; made where it is missing.
        speech: Corpora of tones with made texts, `train` and `dev`.
        sounds: Corpora of noise, `train` alone, labelled `rain`.
        rooms: Corpora of impulse responses, `train` alone.
        dev: Rows of the `dev` split of each corpus of speech, of two speakers in turn.

    Returns:
        `root`.
    """
    (root / "manifests").mkdir(parents=True, exist_ok=True)
    for name in speech:
        random = np.random.default_rng(sum(name.encode()))
        rows = []
        for split, count in (SPLITS | {"dev": dev}).items():
            for number in range(count):
                words = [str(word) for word in random.choice(WORDS, size=1 + number % 3)]
                signal = say(words, random)
                extra = {"text": " ".join(words), "lang": "en", "speaker": f"voice{number % 2}"}
                rows.append(_row(root, name, split, number, signal) | extra)
        _write(root, name, rows)
    for name in sounds:
        random = np.random.default_rng(sum(name.encode()))
        rows = [
            _row(root, name, "train", number, 0.1 * random.standard_normal(RATE))
            | {"label": "rain"}
            for number in range(2)
        ]
        _write(root, name, rows)
    for name in rooms:
        random = np.random.default_rng(sum(name.encode()))
        response = np.exp(-np.arange(800) / 100) * random.standard_normal(800)
        response[20] = 4.0
        _write(root, name, [_row(root, name, "train", 0, response / 5)])
    return root


def write_labelled(root: Path, name: str, classes: int = 3, clips: int = 5, folds: int = 3) -> None:
    """Write a corpus of labelled clips: a class is a word's tones, the last fold is `test`.

    Args:
        root: The pack's folder.
        name: The corpus.
        classes: Number of classes.
        clips: Clips of each class in each fold.
        folds: Number of folds.
    """
    random = np.random.default_rng(sum(name.encode()))
    rows = []
    for number in range(folds * classes * clips):
        fold, label = number % folds + 1, WORDS[number // folds % classes]
        split = "test" if fold == folds else "train"
        row = _row(root, name, split, number, say([label], random))
        rows.append(row | {"label": label, "fold": fold})
    _write(root, name, rows)


def say(words: Iterable[str], random: np.random.Generator) -> np.ndarray:
    """Return two tones for each word, with a little noise."""
    pieces = []
    for word in words:
        time = np.arange(int(RATE * random.uniform(0.2, 0.35))) / RATE
        pitch = 200 + 90 * WORDS.index(word)
        pieces.append(
            0.2 * np.sin(2 * np.pi * pitch * time) + 0.1 * np.sin(5 * np.pi * pitch * time)
        )
    signal = np.concatenate(pieces)
    return signal + 0.003 * random.standard_normal(len(signal))


def _row(root: Path, name: str, split: str, number: int, signal: np.ndarray) -> dict[str, object]:
    audio = f"audio/{name}/{split}/{number:03d}.wav"
    path = root / audio
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal.astype(np.float32), RATE, subtype="PCM_16")
    return {
        "id": f"{name}-{split}-{number:03d}",
        "audio": audio,
        "tar": "",
        "split": split,
        "duration": len(signal) / RATE,
    }


def _write(root: Path, name: str, rows: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "manifests" / f"{name}.jsonl").write_text(text)
