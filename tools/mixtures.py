"""Mixtures of two speakers with enrolments: make them, and score an adapter that is told one.

    python tools/mixtures.py OUT --split dev        # from asc and wake of the data pack
    python tools/mixtures.py OUT --adapter runs/adapt-target_speaker/best

Every utterance of a speaker with two or more is mixed once with one of another speaker of the same
split, so speakers of `train`, `dev` and `test` never meet; what is drawn hangs on the ids and the
seed alone. OUT/manifest.jsonl names the mixture, its text, an enrolment of its speaker, and text
and enrolment of the other one. Scores, each with the WER and its interval over speakers:

    told          told of the speaker, against what that one says
    swapped       told of the other one, against what the other one says
    wrong         told of the other one, against what the speaker says
    not_told      at strength 0, against what the speaker says
    random_pick   told of one of the two by the toss of a coin: the mean of told and wrong
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from speechadapt.audio.span import Signal
from speechadapt.core.errors import SpeechadaptError
from speechadapt.core.files import atomic_write_json
from speechadapt.core.seed import generator
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance, read_manifest, write_manifest
from speechadapt.data.mixture import Companies
from speechadapt.metrics.bootstrap import bootstrap_ratio
from speechadapt.metrics.wer import Pair, score_pairs
from speechadapt.models.build import load
from speechadapt.models.recogniser import Recogniser
from speechadapt.models.told import tell
from speechadapt.training.adapt.conditions import MixConfig, mixed

RATE = 16000
CORPORA = ("asc", "wake")
MANIFEST, SCORES = "manifest.jsonl", "scores.json"


def make(root: Path, folder: Path, corpora: Sequence[str], split: str, seed: int) -> int:
    """Write mixtures with their enrolments.

    Args:
        root: The data pack.
        folder: Is made.
        corpora: Whose speakers.
        split: Of which split.
        seed: Of all that is drawn.

    Returns:
        How many there are.
    """
    utterances = [item for item in pack.load_splits(root, corpora, split) if item.text]
    config = MixConfig()
    companies = Companies(utterances, config.enrolment_s)
    rows = []
    for index in companies.members:
        item = utterances[index]
        random = generator("mixtures", seed, item.id)
        company = companies.draw(index, random)
        other = utterances[company.other]
        mixture, _ = mixed(_read(root, item), _read(root, other), config, RATE, random)
        row = {
            "corpus": item.extra["corpus"],
            "split": split,
            "enrolment": _write(
                folder, f"enrolment/{item.id}", root, utterances, company.enrolment
            ),
            "other_text": other.text,
            "other_enrolment": _write(
                folder, f"other/{item.id}", root, utterances, company.other_enrolment
            ),
        }
        path = f"mixtures/{item.id}.wav"
        _save(folder / path, mixture)
        seconds = len(mixture) / RATE
        rows.append(Utterance(path, seconds, 0.0, item.text, item.lang, item.speaker, item.id, row))
    write_manifest(folder / MANIFEST, rows)
    return len(rows)


def score(folder: Path, adapter: Path, normaliser: str, model: str | None = None) -> dict[str, Any]:
    """Score an adapter on mixtures made before.

    Args:
        folder: Holds them.
        adapter: Its folder.
        normaliser: Rules by which texts are compared.
        model: Its base, where not found by the name in its folder.
    """
    rows = read_manifest(folder / MANIFEST)
    recogniser = load(model, adapter=adapter)
    heard = {
        name: _heard(recogniser, folder, rows, name) for name in ("enrolment", "other_enrolment")
    }
    off = _heard(recogniser, folder, rows, "enrolment", strength=0.0)
    own = [item.text or "" for item in rows]
    others = [str(item.extra["other_text"]) for item in rows]
    found = {
        "told": _scored(rows, own, heard["enrolment"], normaliser),
        "swapped": _scored(rows, others, heard["other_enrolment"], normaliser),
        "wrong": _scored(rows, own, heard["other_enrolment"], normaliser),
        "not_told": _scored(rows, own, off, normaliser),
    }
    mean = (found["told"]["wer"] + found["wrong"]["wer"]) / 2
    return {"items": len(rows), **found, "random_pick": {"wer": mean}}


def _heard(
    recogniser: Recogniser,
    folder: Path,
    rows: Sequence[Utterance],
    name: str,
    strength: float | None = None,
) -> list[str]:
    texts = []
    for item in rows:
        tell(recogniser, condition=folder / str(item.extra[name]), strength=strength)
        samples, _ = soundfile.read(folder / item.audio_filepath, dtype="float32")
        texts.append(recogniser.decode_batch([samples])[0].text)
    return texts


def _scored(
    rows: Sequence[Utterance], wanted: Sequence[str], texts: Sequence[str], normaliser: str
) -> dict[str, Any]:
    pairs = [
        Pair(item.id, reference, text, item.speaker, item.lang)
        for item, reference, text in zip(rows, wanted, texts, strict=True)
    ]
    items = score_pairs(pairs, normaliser).items
    interval = bootstrap_ratio(
        [one.words.edits for one in items],
        [one.words.reference for one in items],
        [one.pair.speaker for one in items],
    )
    return {"wer": interval.estimate, "interval": [interval.low, interval.high]}


def _read(root: Path, item: Utterance) -> Signal:
    samples, rate = pack.read_audio(root, item)
    resampled = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    return np.ascontiguousarray(resampled, dtype=np.float32)


def _write(
    folder: Path, name: str, root: Path, utterances: Sequence[Utterance], rows: Sequence[int]
) -> str:
    path = f"{name}.wav"
    _save(folder / path, np.concatenate([_read(root, utterances[one]) for one in rows]))
    return path


def _save(path: Path, signal: Signal) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal, RATE, subtype="PCM_16")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--adapter", type=Path, help="score this one on mixtures made before")
    parser.add_argument("--model", help="its base, where not found by name")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPEECHADAPT_DATA"))
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA))
    parser.add_argument("--split", default="dev")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--normaliser", default="verbatim")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(list(sys.argv[1:] if words is None else words))
    try:
        if arguments.adapter is None:
            if arguments.data is None:
                print("mixtures: set SPEECHADAPT_DATA or give --data FOLDER.", file=sys.stderr)
                return 2
            count = make(
                Path(arguments.data),
                arguments.folder,
                arguments.corpora,
                arguments.split,
                arguments.seed,
            )
            print(f"{count} mixtures of {arguments.split} in {arguments.folder}")
            return 0
        found = score(arguments.folder, arguments.adapter, arguments.normaliser, arguments.model)
    except SpeechadaptError as error:
        print(f"mixtures: {error}", file=sys.stderr)
        return 2
    for name, one in found.items():
        if isinstance(one, dict):
            low, high = one.get("interval", (float("nan"),) * 2)
            print(f"{name:<14}{100 * one['wer']:7.1f} % WER  [{100 * low:.1f}, {100 * high:.1f}]")
    atomic_write_json(arguments.folder / SCORES, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
