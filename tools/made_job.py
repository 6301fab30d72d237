"""A job folder made of records alone, for tests and measurements of what reads one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import soundfile

from speechadapt.core.files import atomic_write_json
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Journal, Record
from speechadapt.jobs.plan import Limits, PlanItem, make_plan, write_plan
from speechadapt.jobs.rows import make_row

WORDS = "one two three four five six seven eight nine zero".split()
IDENTITY = {
    "job": "transcribe",
    "versions": {"speechadapt": "0"},
    "model": {"name": "made up"},
    "options": {"normaliser": "verbatim", "formats": ["txt", "json"]},
}
SUMMARY = {
    "speed": {
        "model": {"rtf": 0.02, "rtfx": 50.0},
        "end_to_end": {"rtf": 0.1, "rtfx": 10.0},
        "workers": 1,
        "environment": {"device": "cpu", "threads": 2},
    }
}


def write_job(output: Path, count: int, done: int | None = None, words: int = 8) -> list[PlanItem]:
    """Write a job of `count` items of so many words, of which the first `done` have records.

    Item 3 failed as UNREADABLE, item 5 is partial, every seventh is flagged; every fourth text has
    a substitution, every fifth lacks a word, every ninth has one too many.
    """
    chance = random.Random(0)
    items = [
        PlanItem(
            id=f"clip{number:04d}",
            audio_filepath=f"deep/clip{number:04d}.flac",
            path=str(output.parent / "in" / f"clip{number:04d}.flac"),
            stem=f"clip{number:04d}",
            key="k",
            header_s=1.0 + number % 9,
            text=" ".join(chance.choices(WORDS, k=words)),
            speaker=f"s{number % 5}",
        )
        for number in range(count)
    ]
    folder = JobFolder(output)
    folder.claim(IDENTITY)
    write_plan(folder.plan, make_plan(items, Limits()), 0, items)
    atomic_write_json(folder.summary, SUMMARY)
    journal = Journal(folder.journal / "1-of-1-worker-0.jsonl")
    journal.append([_record(item, number) for number, item in enumerate(items[:done])])
    journal.close()
    return items


def write_tone(path: Path, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * 16000)) / 16000
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * 440 * time_s), 16000)


def _record(item: PlanItem, number: int) -> Record:
    if number == 3:
        row = make_row(item, "failed", reason="UNREADABLE", duration=item.audio_s)
        note = "not <audio> & no header"
        return Record(item.id, item.key, "failed", "UNREADABLE", note, row=row)
    words = (item.text or "").split()
    if number % 4 == 0:
        words[1] = "wrong"
    if number % 5 == 0:
        del words[-1]
    if number % 9 == 0:
        words.append("</script>")
    status = "partial" if number == 5 else "flagged" if number % 7 == 0 else "ok"
    flags = ("repetition",) if status == "flagged" else ()
    row = make_row(item, status, pred_text=" ".join(words), flags=flags, duration=item.audio_s)
    return Record(
        item.id,
        item.key,
        status,
        "PARTIAL" if status == "partial" else None,
        flags=flags,
        audio_s=item.audio_s,
        decode_s=0.01,
        model_s=0.02 * item.audio_s,
        speech_s=0.8,
        covered_s=0.7,
        row=row,
    )
