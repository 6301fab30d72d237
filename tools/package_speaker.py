"""Turn a trained speaker model into a bundled one, with its equal error rates on its card.

Usage: package_speaker.py RUN [--name mini-xvector] [--recipes restore/xvector] [--data ROOT]
                          [--split dev|test] [--damage miipher]

RUN/last is copied to speechadapt/pretrained/NAME/ with the card, its README.md and
`training_ids.txt`. The rates are measured with the stored weights on speakers that were not trained
on: pieces of 3 s of one corpus against one another, as recorded and each against degraded copies of
the others (test noises and rooms with `--split test`, training ones otherwise). Beside the latter
stands how near a piece is to its own degraded copy, which is what a restoration is judged by.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import package_model
from bench_facts import describe_command
from eval_pack import data_root

from speechadapt.audio.degrade import degrade, preset
from speechadapt.core.errors import DataError, SpeechadaptError
from speechadapt.core.files import atomic_write_text, hash_file
from speechadapt.core.seed import generator
from speechadapt.data.corpora.pack import load_corpus, read_audio
from speechadapt.metrics.quality_listener import at_rate
from speechadapt.metrics.verification import EqualError, verify
from speechadapt.models.card import TRAINING_IDS_FILE, ModelCard, Score, render_card, write_card
from speechadapt.models.speaker import DEFAULT, SpeakerModel, load_speaker_model
from speechadapt.training.xvector import pieces

CORPORA = ("speech_commands", "librispeech_clean")
MOST_MB = 1.0
SUMMARY = (
    "A small x-vector model on log-mel features that tells speakers apart: what a restorer does to "
    "voices is judged by it."
)
LIMITS = (
    "It has heard few hundred speakers, most of them in single words of one second: use a large "
    "speaker model where the identity of a voice matters.",
    "A speaker's recordings here mostly share a microphone, which makes them easier to tell from "
    "others than recordings of several days would be.",
    "Cosines fall as recordings get shorter and noisier: of clips of one second many a degraded "
    "copy of the very same clip lies below 0.75, so a gate there is for recordings of several "
    "seconds.",
)
_RATE = 16000
_PIECE_S = 3.0


@dataclass(frozen=True)
class Rated:
    """The equal error rate of one set.

    Args:
        test_set: Its name.
        rate: The rate.
        pieces: Recordings and parts of recordings.
        speakers: How many speak.
        own: Median and lowest twentieth of the cosines of a piece and its own degraded copy; empty
            where nothing is degraded.
    """

    test_set: str
    rate: EqualError
    pieces: int
    speakers: int
    own: tuple[float, ...] = ()


def measure(model: SpeakerModel, root: Path, split: str, damage: str) -> list[Rated]:
    """Return the rates of every set, as recorded and degraded."""
    sounds = "test" if split == "test" else "train"
    noises, rooms = (
        [at_rate(*read_audio(root, one), _RATE) for one in load_corpus(root, name, sounds)]
        for name in ("noise", "rir")
    )
    found = []
    for name in CORPORA:
        clean, worse, speakers = [], [], []
        for item in load_corpus(root, name, split):
            signal = at_rate(*read_audio(root, item), _RATE)
            for number, piece in enumerate(pieces(signal, round(_PIECE_S * _RATE))):
                random = generator("speakers", item.id or "", number)
                made = degrade(piece, _RATE, preset(damage), random, noises, rooms)
                clean.append(model.embed(piece))
                worse.append(model.embed(made.signal))
                speakers.append(item.speaker or "")
        sizes = len(clean), len(set(speakers))
        near = np.sum(np.multiply(clean, worse), axis=1)
        own = float(np.median(near)), float(np.quantile(near, 0.05))
        found.append(Rated(f"{name} {split}", verify(clean, speakers), *sizes))
        title = f"{name} {split}, degraded ({damage})"
        found.append(Rated(title, verify(clean, speakers, worse), *sizes, own))
    return found


def score_of(found: Rated) -> Score:
    """Return a rate as a score of a card."""
    rate = found.rate
    note = (
        f"{found.speakers} speakers; {rate.same} pairs of one, {rate.different} of two; threshold "
        f"{rate.threshold:.2f}"
    )
    if found.own:
        note += f"; a piece and its own degraded copy: {found.own[0]:.2f}, 95 % above "
        note += f"{found.own[1]:.2f}"
    return Score(found.test_set, "eer", rate.rate, rate.low, rate.high, found.pieces, note)


def package(arguments: argparse.Namespace, command: str) -> ModelCard:
    """Write the bundled folder and return its card.

    Raises:
        DataError: The weights are larger than a bundled speaker model may be.
    """
    from safetensors import safe_open

    run, target = arguments.run, package_model.PRETRAINED / arguments.name
    size = (run / "last" / "model.safetensors").stat().st_size / 1e6
    if size > MOST_MB:
        raise DataError(f"the model takes {size:.2f} MB; a bundled one may take {MOST_MB:g}.")
    package_model.copy_run(run, target, "last")
    ids = package_model.training_ids([run])
    atomic_write_text(target / TRAINING_IDS_FILE, "".join(f"{name}\n" for name in ids))
    with safe_open(target / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())
    root = data_root(arguments.data)
    found = measure(load_speaker_model(target), root, arguments.split, arguments.damage)
    card = ModelCard(
        name=arguments.name,
        summary=SUMMARY,
        encoder="log-mel, dilated convolutions",
        decoder="x-vector",
        parameters=parameters,
        licence="CC BY 4.0",
        recipes=tuple(arguments.recipes),
        data=package_model.corpora(root, set(ids)),
        scores=tuple(map(score_of, found)),
        limits=LIMITS,
        commands=(command,),
        step=json.loads((run / "last" / "training.json").read_text())["step"],
        weights_sha256=hash_file(target / "model.safetensors"),
    )
    write_card(target, card)
    atomic_write_text(target / "README.md", render_card(card))
    return card


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default=DEFAULT)
    parser.add_argument("--recipes", nargs="+", default=["restore/xvector"])
    parser.add_argument("--data", type=Path, default=os.environ.get("SPEECHADAPT_DATA"))
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--damage", default="miipher")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = list(sys.argv[1:] if words is None else words)
    try:
        command = describe_command("package_speaker.py", given, pack=True)
        card = package(parse(given), command)
    except SpeechadaptError as error:
        print(f"package_speaker: {error}", file=sys.stderr)
        return 2
    for score in card.scores:
        print(f"{score.test_set}: {score.metric} {score.value:.3f} ({score.note})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
