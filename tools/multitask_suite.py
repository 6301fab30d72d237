"""Make a suite of thirteen tasks of the data pack, all audio coded alike.

    python tools/multitask_suite.py --output FOLDER [--data PACK]

Ten tasks in five languages and three of them again in noise or in rooms. Every clip of every split
goes through one Opus round trip, so that nothing can be told apart by its codec. Noise and rooms of
the test split come from the test splits of their corpora; which of them a clip gets hangs on its id
alone. Where a corpus has no dev split, a fifth of train by a fixed hash is dev. Writes
`suite.jsonl`, a manifest whose rows name `task` and `split`, and the audio beside it; `suite.json`
says what each task is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speechadapt.audio.augment import Signal, add_noise, reverberate
from speechadapt.audio.degrade_codec import through_codec
from speechadapt.core.errors import SpeechadaptError
from speechadapt.core.files import atomic_write_json, hash_file
from speechadapt.core.seed import derive_seed, generator
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance, write_manifest
from speechadapt.text.pinyin import LANGUAGE as PINYIN
from speechadapt.training.speech import DataConfig, data_root, split_rows

CODEC = "opus:32"
RATE = 16000
HELD_OUT = 0.2
SNR_DB = (0.0, 10.0)
SPLITS = ("train", "dev", "test")
MANIFEST, FACTS = "suite.jsonl", "suite.json"
Damage = Literal["", "noise", "room"]
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Task:
    """One task of the suite.

    Args:
        name: Its name.
        corpus: Where its clips come from.
        text: What it is, in words.
        field: Field of a row that says whether it belongs here; empty takes all rows.
        digits: Whether that field is to be a digit, or anything else.
        damage: What is done to the clips.
        train_s: Most seconds of training audio, by a fixed hash.
        language: Other than the corpus's own.
    """

    name: str
    corpus: str
    text: str
    field: str = ""
    digits: bool = True
    damage: Damage = ""
    train_s: float = 1500.0
    language: str = ""


AR_DIGITS = Task("ar_digits", "asc", "arabic digits, single words", "text_en")
EN_COMMANDS = Task(
    "en_commands", "speech_commands", "english commands, many voices", "text", digits=False
)
ORDERS = Task("orders", "orders", "english coffee orders, sentences")
TASKS = (
    Task("en_digits", "fsdd", "english digits, narrow band, single words"),
    EN_COMMANDS,
    AR_DIGITS,
    Task("ar_commands", "asc", "arabic commands, single words", "text_en", digits=False),
    ORDERS,
    Task("wake", "wake", "english wake words, key phrases"),
    Task("zh_words", "zh_words", "mandarin words in pinyin, one voice", language=PINYIN),
    Task("es_words", "es_words", "spanish words and phrases, one voice"),
    Task("de_read", "kerstin", "german read speech, sentences, one voice"),
    Task("en_read", "librispeech", "english read speech, long sentences"),
    replace(
        AR_DIGITS, name="ar_digits_noisy", text="noisy arabic digits, single words", damage="noise"
    ),
    replace(
        EN_COMMANDS,
        name="en_commands_room",
        text="reverberant english commands, in rooms",
        damage="room",
    ),
    replace(ORDERS, name="orders_noisy", text="noisy english coffee orders", damage="noise"),
)


class Sounds:
    """Noises and rooms by split, at the suite's rate.

    Args:
        root: The data pack's folder.
    """

    def __init__(self, root: Path) -> None:
        self._found: dict[tuple[str, str], list[Signal]] = {}
        self._root = root

    def of(self, corpus: str, split: str) -> list[Signal]:
        """Return the signals of one split; those of dev are those of train."""
        split = "test" if split == "test" else "train"
        key = (corpus, split)
        if key not in self._found:
            rows = pack.load_corpus(self._root, corpus, split)
            self._found[key] = [read(self._root, row) for row in rows]
        return self._found[key]


def read(root: Path, row: Utterance) -> Signal:
    """Return a clip at the suite's rate."""
    import soxr

    samples, rate = pack.read_audio(root, row)
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    return np.ascontiguousarray(samples, dtype=np.float32)


def rows_of(root: Path, task: Task, split: str) -> list[Utterance]:
    """Return the clips of one split of a task, in the order of the corpus.

    Args:
        root: The data pack's folder.
        task: The task.
        split: `train`, `dev` or `test`.
    """
    if split == "test":
        rows = pack.load_corpus(root, task.corpus, "test")
    else:
        rows = split_rows(root, task.corpus, split, HELD_OUT)
    rows = [row for row in rows if row.text and _belongs(task, row)]
    if split != "train":
        # of orders, only those whose words are beyond doubt
        return [row for row in rows if row.extra.get("open_grammar_agrees", True)]
    chosen, total = set[str](), 0.0
    for row in sorted(rows, key=lambda one: derive_seed("suite", one.id)):
        total += row.duration or 0.0
        if total <= task.train_s:
            chosen.add(row.id)
    return [row for row in rows if row.id in chosen]


def _belongs(task: Task, row: Utterance) -> bool:
    if not task.field:
        return True
    value = row.text if task.field == "text" else row.extra.get(task.field)
    return (value in DIGITS) == task.digits


def damaged(signal: Signal, row: Utterance, task: Task, split: str, sounds: Sounds) -> Signal:
    """Return a clip with the noise or the room that its id picks, coded like all others."""
    random = generator("suite", task.name, row.id)
    if task.damage == "noise":
        noises = sounds.of("noise", split)
        noise = noises[int(random.integers(len(noises)))]
        signal = add_noise(signal, noise, float(random.uniform(*SNR_DB)), random)
    if task.damage == "room":
        rooms = sounds.of("rir", split)
        signal = reverberate(signal, rooms[int(random.integers(len(rooms)))])
    return through_codec(np.asarray(signal, dtype=np.float32), RATE, CODEC)


def make(root: Path, folder: Path, tasks: Sequence[Task] = TASKS) -> dict[str, Any]:
    """Write a suite.

    Args:
        root: The data pack's folder.
        folder: Is made.
        tasks: What it is made of.

    Returns:
        What `suite.json` holds.
    """
    sounds, manifest = Sounds(root), list[Utterance]()
    for task in tasks:
        for split in SPLITS:
            for row in rows_of(root, task, split):
                audio = f"audio/{task.name}/{split}/{row.id}.flac"
                signal = damaged(read(root, row), row, task, split, sounds)
                _write(folder / audio, signal)
                manifest.append(
                    Utterance(
                        audio,
                        duration=len(signal) / RATE,
                        text=row.text,
                        lang=task.language or row.lang,
                        speaker=row.speaker,
                        id=f"{task.name}/{row.id}",
                        extra={"task": task.name, "split": split, "source": row.id},
                    )
                )
        print(f"{task.name}: {_counted(manifest, task.name)}", flush=True)
    write_manifest(folder / MANIFEST, manifest)
    facts = {
        "codec": CODEC,
        "snr_db": list(SNR_DB),
        "tasks": {task.name: task.text for task in tasks},
        "items": {task.name: _counted(manifest, task.name) for task in tasks},
        "manifest_sha256": hash_file(folder / MANIFEST),
    }
    atomic_write_json(folder / FACTS, facts)
    return facts


def _write(path: Path, signal: Signal) -> None:
    import soundfile

    # the manifest is written last and whole; single clips need no such care
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(signal, -1.0, 1.0), RATE, format="FLAC")


def _counted(rows: Sequence[Utterance], task: str) -> Mapping[str, int]:
    own = [str(row.extra["split"]) for row in rows if row.extra["task"] == task]
    return {split: own.count(split) for split in SPLITS}


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    try:
        make(data_root(DataConfig(root=arguments.data)), arguments.output)
    except SpeechadaptError as error:
        print(f"multitask_suite: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
