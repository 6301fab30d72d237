"""Speak the words and sentences of the English training splits with open synthetic voices.

Usage: make_voices.py --output FOLDER [--data ROOT] [--sentences 500] [--strings 250] [--seed 1]

Writes FOLDER/audio/voices/train/*.opus and FOLDER/manifests/voices.jsonl in the pack's form; copy
or link both into the data root to train on `voices`. Needs the programs `flite` and `espeak-ng`.
Texts are the words of the digit, command and wake corpora, strings of digits, the coffee orders of
the training split and new ones made by exchanging the values of their slots, but for those that dev
or test hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from speechadapt.core.errors import SpeechadaptError
from speechadapt.core.files import atomic_write_text
from speechadapt.data.corpora.pack import load_corpus, load_splits
from speechadapt.data.manifest import Utterance
from speechadapt.data.recombine import Recombiner

RATE = 16000
WORD_CORPORA = ("fsdd", "speech_commands", "wake")
FLITE_PITCH = {"awb": (95, 165), "kal16": (80, 135), "rms": (80, 130), "slt": (140, 230)}
ESPEAK_ACCENTS = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-rp",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
ESPEAK_VARIANTS = (
    *(f"m{number}" for number in range(1, 9)),
    *(f"f{number}" for number in range(1, 6)),
)
LICENCE = {
    "flite": "audio made with Flite 2.2 and its CMU voices (BSD-style)",
    "espeak-ng": "audio made with eSpeak NG 1.51 (the program is GPL-3.0)",
}


@dataclass(frozen=True)
class Line:
    """One text for one voice.

    Args:
        text: What is said.
        engine: `flite` or `espeak-ng`.
        voice: Name within the engine.
        pitch: Mean fundamental in Hz (flite) or 0 to 99 (eSpeak).
        pace: Duration factor; above 1 is slower.
    """

    text: str
    engine: str
    voice: str
    pitch: int
    pace: float

    def command(self, output: Path) -> list[str]:
        """Return the command that writes this line to `output`."""
        if self.engine == "flite":
            settings = (f"int_f0_target_mean={self.pitch}", f"duration_stretch={self.pace:.2f}")
            flags = [part for setting in settings for part in ("--setf", setting)]
            return ["flite", "-voice", self.voice, *flags, "-t", self.text, "-o", str(output)]
        words_a_minute = round(165 / self.pace)
        numbers = ["-s", str(words_a_minute), "-p", str(self.pitch)]
        return ["espeak-ng", "-v", self.voice, *numbers, "-w", str(output), self.text]


def draw_line(text: str, random: np.random.Generator) -> Line:
    """Give `text` a voice: one in two from each engine."""
    pace = float(random.uniform(0.8, 1.3))
    if random.random() < 0.5:
        voice = str(random.choice(sorted(FLITE_PITCH)))
        low, high = FLITE_PITCH[voice]
        return Line(text, "flite", voice, int(random.integers(low, high)), pace)
    voice = f"{random.choice(ESPEAK_ACCENTS)}+{random.choice(ESPEAK_VARIANTS)}"
    return Line(text, "espeak-ng", voice, int(random.integers(20, 80)), pace)


def recombined_orders(
    root: Path, orders: Sequence[Utterance], count: int, random: np.random.Generator
) -> list[str]:
    """Return `count` new orders, none of which stands in the dev or test split."""
    recombiner = Recombiner(orders)
    held_out = {u.text for u in load_corpus(root, "orders") if u.extra["split"] != "train"}
    found: list[str] = []
    while len(found) < count:
        text = recombiner.draw(orders[int(random.integers(len(orders)))], random)
        if text not in held_out:
            found.append(text)
    return found


def draw_lines(root: Path, arguments: argparse.Namespace) -> list[Line]:
    """Return every line of the corpus, a function of the training texts and the seed."""
    random = np.random.default_rng(arguments.seed)
    words = {u.text for u in load_splits(root, WORD_CORPORA, "train") if u.text}
    digits = sorted({u.text for u in load_splits(root, ["fsdd"], "train") if u.text})
    orders = [u for u in load_splits(root, ["orders"], "train") if u.text]
    texts = [word for word in sorted(words) for _ in range(arguments.takes)]
    for _ in range(arguments.strings):
        texts.append(" ".join(random.choice(digits, size=int(random.integers(2, 7)))))
    texts += [order.text for order in orders if order.text]
    texts += recombined_orders(root, orders, arguments.sentences, random)
    return [draw_line(text, random) for text in texts]


def trimmed(signal: NDArray[np.float32], margin_s: float = 0.06) -> NDArray[np.float32]:
    """Cut the silence before and after speech, 40 dB below the peak, but for a margin."""
    loud = np.flatnonzero(np.abs(signal) > 0.01 * np.max(np.abs(signal)))
    margin = round(margin_s * RATE)
    return signal[max(0, int(loud[0]) - margin) : int(loud[-1]) + margin]


def speak(line: Line, target: Path) -> float:
    """Write `line` to `target` as Opus at 16 kHz and return its seconds.

    Raises:
        RuntimeError: The engine wrote no speech.
    """
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "line.wav"
        done = subprocess.run(line.command(wave), capture_output=True, text=True, check=False)
        if done.returncode or not wave.is_file():
            raise RuntimeError(f"{line.engine} wrote nothing for {line.text!r}: {done.stderr}")
        signal, rate = soundfile.read(wave, dtype="float32")
    signal = soxr.resample(signal, rate, RATE).astype(np.float32)
    if not np.any(signal):
        raise RuntimeError(f"{line.engine} is silent for {line.text!r} with {line.voice}.")
    signal = trimmed(signal) * np.float32(0.5 / np.max(np.abs(signal)))
    soundfile.write(target, signal, RATE, format="OGG", subtype="OPUS")
    return len(signal) / RATE


def manifest_row(name: str, line: Line, seconds: float) -> dict[str, object]:
    """Return the manifest's row of one line."""
    return {
        "id": f"voices-{name}",
        "audio": f"audio/voices/train/{name}.opus",
        "split": "train",
        "duration": round(seconds, 3),
        "sampling_rate": RATE,
        "text": line.text,
        "lang": "en",
        "speaker": f"{line.engine}-{line.voice}",
        "tasks": ["asr", "synthetic"],
        "source": line.engine,
        "licence": LICENCE[line.engine],
        "codec": "opus",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPEECHADAPT_DATA", ""))
    parser.add_argument("--takes", type=int, default=60, help="voices for each word")
    parser.add_argument("--sentences", type=int, default=500, help="recombined orders")
    parser.add_argument("--strings", type=int, default=250, help="strings of 2 to 6 digits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    missing = [name for name in LICENCE if not shutil.which(name)]
    if missing:
        print(f"make_voices: {', '.join(missing)} not found; install them.", file=sys.stderr)
        return 2
    try:
        lines = draw_lines(Path(arguments.data), arguments)
    except SpeechadaptError as error:
        print(f"make_voices: {error}", file=sys.stderr)
        return 2
    folder = arguments.output / "audio/voices/train"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:05d}" for index in range(len(lines))]
    with ThreadPoolExecutor(arguments.threads) as pool:
        seconds = list(pool.map(speak, lines, [folder / f"{name}.opus" for name in names]))
    rows = [manifest_row(*parts) for parts in zip(names, lines, seconds, strict=True)]
    manifest = arguments.output / "manifests/voices.jsonl"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(manifest, "".join(f"{json.dumps(row)}\n" for row in rows))
    voices = len({row["speaker"] for row in rows})
    print(f"{len(rows)} clips, {sum(seconds) / 60:.1f} min, {voices} voices")
    return 0


if __name__ == "__main__":
    sys.exit(main())
